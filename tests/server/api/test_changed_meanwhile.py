"""Checking a password takes time: what is changed in it counts, and not what was read before."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from fleetwire.core import totp
from fleetwire.server.app import new_id
from fleetwire.server.domain import factors, people
from fleetwire.server.store import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.server.api.conftest import Answer, Server

    from fleetwire.server.domain.secrets import Sealing
    from fleetwire.server.store.engine import Tx

OLD, NEW = "the old password", "quite another one"


class Person:
    """A user of the test's own, at a browser."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.name = f"u{new_id()}"
        made = self.as_admin("POST", "users", {"name": self.name, "password": OLD})
        assert made.status == 201, made
        self.id = made.json["id"]

    def sign_in(self) -> Person:
        answer = self.login()
        cookie = answer.headers["set-cookie"].partition(";")[0]
        csrf = answer.json["csrf"]
        self.page = {"Cookie": cookie, "Origin": self.server.origin, "X-CSRF-Token": csrf}
        return self

    def as_admin(self, method: str, path: str, body: Any = None) -> Answer:
        return self.server.call(method, f"/api/v1/{path}", body)

    def login(self, **more: str) -> Answer:
        body = {"username": self.name, "password": OLD, **more}
        return self.server.call("POST", "/api/v1/login", body, token=None)

    def ask(self, path: str, body: Any) -> Answer:
        return self.server.call("POST", f"/api/v1/{path}", body, headers=self.page, token=None)

    def count_sessions(self) -> int:
        rows = tables.sessions.select().where(tables.sessions.c.user_id == self.id)
        return len(self.server.read(lambda c: c.execute(rows).all()))

    # -- what an admin, or the person elsewhere, does meanwhile --------------------------------

    def reset(self) -> None:
        body = {"password": NEW}
        assert self.as_admin("POST", f"users/{self.id}/password", body).status == 200

    def disable(self) -> None:
        assert self.as_admin("PATCH", f"users/{self.id}", {"disabled": True}).status == 200

    def begin_factor(self, password: str = OLD) -> bytes:
        answer = self.ask("me/totp", {"password": password})
        assert answer.status == 200, answer
        return totp.from_text(answer.json["secret"])

    def confirm_factor(self, secret: bytes) -> list[str]:
        code = totp.code_at(secret, totp.step_of(self.server.parts.clock()))
        answer = self.ask("me/totp/confirm", {"code": code})
        assert answer.status == 200, answer
        codes: list[str] = answer.json["recovery_codes"]
        return codes


@contextlib.contextmanager
def meanwhile(
    server: Server, monkeypatch: pytest.MonkeyPatch, asked: Callable[[], Answer]
) -> Iterator[Callable[[], Answer]]:
    """Ask, and hold the answer after the password was found to be right; what is yielded lets it
    go on, and returns it.
    """
    passwords = server.parts.passwords
    matches, reached, go_on = passwords.matches, asyncio.Event(), asyncio.Event()

    async def held(password: str, stored: str | None) -> bool:
        is_right = await matches(password, stored)
        reached.set()
        await go_on.wait()
        return is_right

    async def release() -> None:
        go_on.set()

    with ThreadPoolExecutor(1) as thread, monkeypatch.context() as patch:
        patch.setattr(passwords, "matches", held)
        answer = thread.submit(asked)
        server.run(asyncio.wait_for(reached.wait(), 30))
        patch.undo()

        def finish() -> Answer:
            server.run(release())
            return answer.result()

        try:
            yield finish
        finally:
            server.run(release())


@pytest.mark.parametrize("change", [Person.reset, Person.disable])
def test_a_login_under_way_ends_with_those_that_are_there(
    server: Server, monkeypatch: pytest.MonkeyPatch, change: Callable[[Person], None]
) -> None:
    person = Person(server)
    with meanwhile(server, monkeypatch, person.login) as finish:
        change(person)
        answer = finish()
    assert (answer.status, answer.code) == (401, "bad-credentials")
    assert person.count_sessions() == 0


def test_a_code_of_a_factor_that_was_ended_begins_no_login(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = Person(server).sign_in()
    recovery = person.confirm_factor(person.begin_factor())
    use = factors.use

    def used_and_ended(tx: Tx, user: str, code: str, *, sealing: Sealing) -> bool:
        is_good = use(tx, user, code, sealing=sealing)
        factors.end(tx, user)
        people.end_sessions(tx, user)
        return is_good

    with monkeypatch.context() as patch:
        patch.setattr(factors, "use", used_and_ended)
        assert person.login(code=recovery[0]).code == "bad-credentials"
    assert person.count_sessions() == 0


def test_whoever_knew_the_old_password_sets_no_new_one_after_a_reset(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = Person(server).sign_in()
    change = {"old": OLD, "new": "of somebody else"}
    with meanwhile(server, monkeypatch, lambda: person.ask("me/password", change)) as finish:
        person.reset()
        assert finish().code == "bad-credentials"
    assert person.login(password=NEW).status == 200


def test_nobody_begins_a_second_factor_with_a_password_that_was_reset(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = Person(server).sign_in()
    with meanwhile(server, monkeypatch, lambda: person.ask("me/totp", {"password": OLD})) as finish:
        person.reset()
        assert finish().code == "bad-credentials"
    rows = tables.totps.select().where(tables.totps.c.user_id == person.id)
    assert not server.read(lambda c: c.execute(rows).all())
