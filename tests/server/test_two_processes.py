"""Two server processes on one PostgreSQL, with the same keys: an end that one of them commits
reaches what the other one holds within 5 s (promises, 2), though neither hears the other's nudges.
"""

from __future__ import annotations

import http.client
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from fleetwire.client import NotLoggedIn
from fleetwire.server.master_key import KEY_FILE as MASTER_KEY_FILE
from fleetwire.server.signing import KEY_FILE
from fleetwire.testing.lab import Lab, wait_until

pytestmark = pytest.mark.slow
WITHIN_S = 5.0


class Pair(NamedTuple):
    """Two servers; what one does must reach the other."""

    here: Lab
    there: Lab


@pytest.fixture
def pair(tmp_path: Path, database_url: str) -> Iterator[Pair]:
    if not database_url.startswith("postgresql"):
        pytest.skip("two servers need one PostgreSQL: --database postgres")
    for name in ("here", "there"):
        (tmp_path / name / "data").mkdir(parents=True, mode=0o700)
    with (
        Lab(tmp_path / "here", database=database_url) as here,
        Lab(tmp_path / "there", database=database_url) as there,
    ):
        here.start_server()
        for name in (KEY_FILE, MASTER_KEY_FILE):
            if (here.data / name).exists():
                shutil.copy2(here.data / name, there.data / name)
        there._token = here._token
        there.env["FLEETWIRE_TOKEN"] = here._token
        there.start_server()
        yield Pair(here, there)


@contextmanager
def streaming(lab: Lab, headers: dict[str, str], path: str) -> Iterator[threading.Event]:
    """Hold a stream open; the event is set when the server ends it."""
    connection = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200
    ended = threading.Event()

    def read() -> None:
        while answer.read1(4096):
            pass
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield ended
    finally:
        if connection.sock is not None:
            connection.sock.close()
        connection.close()
        thread.join(30)


def test_work_goes_from_one_process_to_a_node_of_the_other_and_is_stopped(pair: Pair) -> None:
    pair.there.start_agent()
    run = pair.here.submit("trap '' TERM; echo up; while :; do sleep 0.1; done").id
    wait_until(lambda: pair.here.client.run(run).state == "running", "the run")
    pair.here.client.stop_run(run, grace=0.0)
    assert pair.here.client.wait(run).outcome == "canceled"
    assert "refuse" not in (pair.there.folder / "node-1.log").read_text()


def test_a_revoked_node_loses_its_link_at_the_other_process(pair: Pair) -> None:
    pair.there.start_agent()
    began = time.monotonic()
    pair.here.client.delete_node("node-1", force=True)
    log = pair.there.folder / "node-1.log"
    wait_until(lambda: "4403" in log.read_text(), "the link to be closed")
    assert time.monotonic() - began < WITHIN_S


def test_a_disabled_user_and_an_ended_login_reach_the_other_process(pair: Pair) -> None:
    admin = pair.here.client
    admin.create_user("u", password="a long enough password 1")
    admin.set_roles("default", "u", ["viewer"])
    pair.there.start_agent()
    run = pair.there.submit("sleep 60").id
    path = f"/api/v1/runs/{run}/events"
    for end in ("logout", "disable"):
        user = pair.here.new_client()
        user.login("u", "a long enough password 1")
        other = pair.there.new_client()
        other.connection.cookie = user.connection.cookie
        assert other.me().name == "u"  # now the other process believes it
        cookie = {"Cookie": str(user.connection.cookie), "Origin": pair.there.url}
        with streaming(pair.there, cookie, path) as ended:
            assert not ended.wait(0.2)
            began = time.monotonic()
            if end == "logout":
                user.logout()
            else:
                admin.change_user("u", disabled=True)
            assert ended.wait(WITHIN_S)
            with pytest.raises(NotLoggedIn):
                other.me()
            assert time.monotonic() - began < WITHIN_S
        user.close()
        other.close()
