"""The audit over HTTP: what is in it, who reads it, and that it can be verified from outside."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from fleetwire.client import Client
from fleetwire.client.audit import Audit, AuditChain, Export, Verified, read_key
from fleetwire.core import access, audit, limits, totp
from fleetwire.core.audit import ACTIONS, SYSTEM, Head, Origin
from fleetwire.core.sparing import Sparing
from fleetwire.server import app
from fleetwire.server.api import noting
from fleetwire.server.api.doors import Door, Unguarded
from fleetwire.server.api.errors import BadCredentials
from fleetwire.server.api.noting import Note
from fleetwire.server.api.routes import DOORS
from fleetwire.server.domain import audit as audits
from fleetwire.server.store import tables

if TYPE_CHECKING:
    from tests.server.api.conftest import Answer, Server

NewServer = Callable[..., "Server"]
CHANGING = [door for door in DOORS if door.action is not None]


def entries(server: Server, *, system: bool = False, **query: Any) -> list[dict[str, Any]]:
    path = "/api/v1/system/audit" if system else "/api/v1/audit"
    words = "&".join(f"{name}={value}" for name, value in {"limit": 500, **query}.items())
    answer = server.call("GET", f"{path}?{words}")
    assert answer.status == 200, answer
    found: list[dict[str, Any]] = answer.json["items"]
    return found


def sign(server: Server) -> None:
    """Sign what there is, as the loop does once there is enough."""

    def now(tx: Any) -> None:
        heads = audits.rows.heads(tx.connection)
        audits.sign(tx, heads, server.parts.audit_key)

    server.write(now)


def client(server: Server) -> Client:
    return Client(server.origin, server.token)


def tamper(server: Server, statement: str, **values: Any) -> None:
    """Change the database as somebody would who has it."""
    server.write(lambda tx: tx.connection.execute(text(statement), values))


class Everything:
    """Does each thing that a door can do, once, and says on what."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.page: dict[str, str] = {}

    def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        answer = self.server.call(method, f"/api/v1{path}", body, **more)
        assert answer.status < 300, answer
        return answer

    def by_login(self, method: str, path: str, body: Any = None) -> Answer:
        return self.ok(method, path, body, headers=self.page, token=None)

    def do(self) -> None:
        server = self.server
        self.page = server.login()
        other = server.login()
        sessions = self.by_login("GET", "/me/sessions").json["items"]
        mine = next(one["id"] for one in sessions if not one["current"])
        self.by_login("DELETE", f"/me/sessions/{mine}")
        del other
        self.people()
        self.account()
        self.project()
        self.nodes()
        self.ok("POST", "/system/close-breaker")
        self.by_login("DELETE", "/login")

    def people(self) -> None:
        self.ok("POST", "/users", {"name": "berta", "password": "a long password"})
        self.ok("PATCH", "/users/berta", {"disabled": True})
        self.ok("POST", "/users/berta/password", {})
        self.ok("DELETE", "/users/berta/totp")
        self.ok("PUT", "/projects/default/members/berta", {"roles": ["viewer"]})
        made = self.ok("POST", "/tokens", {"name": "mine"}).json
        self.ok("DELETE", f"/tokens/{made['id']}")

    def account(self) -> None:
        old = self.server.password
        self.by_login("POST", "/me/password", {"old": old, "new": old})
        secret = self.by_login("POST", "/me/totp", {"password": old}).json["secret"]

        def code(steps: int) -> str:
            return totp.code_at(totp.from_text(secret), totp.step_of(app.now_us()) + steps)

        self.by_login("POST", "/me/totp/confirm", {"code": code(0)})
        self.by_login("POST", "/me/totp/end", {"code": code(1)})

    def project(self) -> None:
        made = self.ok("POST", "/projects", {"name": "short"}).json
        self.ok("DELETE", f"/projects/{made['id']}")
        self.ok("PUT", "/secrets/db", {"value": "hunter2-hunter2"})
        self.ok("DELETE", "/secrets/db")
        made = self.ok("POST", "/enrolment-tokens", {"labels": {"a": "b"}}).json
        self.ok("DELETE", f"/enrolment-tokens/{made['id']}")

    def nodes(self) -> None:
        node = self.server.add_node("n-audit")
        run = self.server.submit(nodes=["n-audit"])
        self.ok("POST", f"/runs/{run['id']}/stop", {})
        self.ok("PATCH", f"/nodes/{node}", {"admin": "draining"})
        for was, way in (("waiting", "approve"), ("quarantined", "release")):
            tamper(self.server, "UPDATE nodes SET admin = :admin", admin=was)
            self.ok("POST", f"/nodes/{node}/{way}")
        self.ok("DELETE", f"/nodes/{node}?force=1")


def test_every_door_that_changes_something_leaves_an_entry_of_its_action(
    new_server: NewServer,
) -> None:
    server = new_server()
    Everything(server).do()
    found = entries(server) + entries(server, system=True)
    done = {one["action"] for one in found if one["outcome"] == "done"}
    # By a login at a provider, `tests/server/api/test_oidc.py`.
    assert {door.action for door in CHANGING} <= done
    assert {one["action"] for one in found} <= ACTIONS
    for one in found:
        if one["action"] == "server.signing-key":
            assert one["actor"]["kind"] == "server"
            continue
        assert one["actor"]["kind"] == "user", one
        assert one["actor"]["name"] == "admin"
        assert one["address"] == "127.0.0.1"
    assert all(one["chain"] == access.DEFAULT_PROJECT for one in entries(server))
    sign(server)
    with client(server) as asking:
        for whose in ({"system": True}, {"project": "default"}):
            verified = Audit(asking).verify(**whose)
            assert verified.verdict.is_good, verified
            assert verified.verdict.signed == verified.verdict.head.number > 0


def test_a_changing_door_without_an_action_stops_the_start() -> None:
    async def endpoint(request: Any) -> Any:
        """Change something."""

    for method in ("POST", "PUT", "PATCH", "DELETE"):
        with pytest.raises(Unguarded, match="does not say what the audit calls it"):
            Door(method, "/x", endpoint, permission="run", answers={204: None}, tag="x")  # type: ignore[arg-type]
    with pytest.raises(Unguarded, match="does not say what the audit calls it"):
        Door(
            "POST", "/x", endpoint, permission="run", answers={204: None}, tag="x",
            action="run.invent",  # type: ignore[arg-type]
        )  # fmt: skip


def test_what_a_run_is_asked_for_is_told_without_what_it_may_hide(server: Server) -> None:
    server.add_node("hush", project=server.new_project("hushing"), os="hush")
    spec = {
        "kind": "script",
        "script": "echo canary-script\n",
        "args": ["canary-argument"],
        "env": {"PASSWORD": "canary-environment"},
    }
    run = server.submit(spec=spec, selector="os=hush", name="nightly", project="hushing")
    (entry,) = entries(server, target=run["id"], action="run.create")
    assert entry["target"] == {"kind": "run", "id": run["id"], "name": "nightly"}
    assert entry["detail"]["selector"] == "os=hush"
    assert len(entry["detail"]["script_sha256"]) == 64
    assert "canary" not in json.dumps(entry)


def test_a_request_that_is_repeated_is_one_entry(server: Server) -> None:
    server.add_node("once", project=server.new_project("only-once"), os="once")
    body = {"spec": {"kind": "ping"}, "selector": "os=once", "project": "only-once"}
    for status in (201, 200):
        answer = server.call("POST", "/api/v1/runs", body, headers={"Idempotency-Key": "audit-1"})
        assert answer.status == status
    assert len(entries(server, target=answer.json["id"])) == 1


def test_what_failed_leaves_no_entry_that_it_was_done(server: Server) -> None:
    before = len(entries(server, system=True, action="user.create", outcome="done"))
    assert server.call("POST", "/api/v1/users", {"name": "admin"}).code == "name-taken"
    assert server.call("POST", "/api/v1/users", {"name": "bad name"}).status == 422
    assert len(entries(server, system=True, action="user.create", outcome="done")) == before
    refused = entries(server, system=True, action="user.create", outcome="refused")[0]
    assert refused["code"] == "name-taken"
    assert refused["detail"]["route"] == "POST /api/v1/users"


def test_a_refusal_is_written_where_it_belongs(server: Server) -> None:
    project = server.new_project("refusing")
    viewer = server.new_user("vera", "viewer", project=project)
    body = {"spec": {"kind": "ping"}, "selector": "os=linux"}
    assert server.call("POST", "/api/v1/runs", body, token=viewer).status == 403
    (entry,) = entries(server, project="refusing", actor="vera")
    assert (entry["action"], entry["outcome"], entry["code"]) == (
        "run.create", "refused", "forbidden",
    )  # fmt: skip
    assert server.call("GET", "/api/v1/users", token=viewer).status == 403
    found = entries(server, system=True, actor="vera", action="read", outcome="refused")
    assert [one["detail"]["route"] for one in found] == ["GET /api/v1/users"]
    # Who is not known leaves nothing: anybody could fill the disk.
    before = len(entries(server, system=True))
    assert server.call("GET", "/api/v1/users", token="fw_nobody").status == 401
    assert server.call("DELETE", "/api/v1/users/x/totp", token=None).status == 401
    assert len(entries(server, system=True)) == before


@pytest.mark.limit("audit_refusals_per_min")
def test_a_flood_of_refusals_is_bounded_and_counted(new_server: NewServer) -> None:
    server = new_server()
    viewer = server.new_user("flo", "viewer")
    most = limits.AUDIT_REFUSALS_PER_MIN
    for _ in range(most + 5):
        assert server.call("GET", "/api/v1/users", token=viewer).status == 403
    assert len(entries(server, system=True, actor="flo")) == most
    later = server.parts.monotonic() + 61.0
    object.__setattr__(server.parts, "monotonic", lambda: later)
    assert server.call("GET", "/api/v1/users", token=viewer).status == 403
    newest, before = entries(server, system=True, actor="flo")[:2]
    assert newest["detail"]["left_out"] == "5"
    assert "left_out" not in before["detail"]


def test_a_flood_from_one_network_is_one_flood(server: Server) -> None:
    """Whoever has one IPv6 address has 2**64 of them."""
    few = Sparing(1, within_s=60.0, most_of_all=100)
    parts = dataclasses.replace(server.parts, refusals=few)
    refused = BadCredentials("No.", hint="No.")
    for address in ("2001:db8::1", "2001:db8::2", "2001:db8::ffff", "2001:db8:0:1::1"):
        stranger = Origin("stranger", address=address)
        server.run(noting.refuse(parts, Note("login", stranger), refused))
    told = [one["address"] for one in entries(server, system=True, action="login")]
    assert [one for one in told if "db8" in one] == ["2001:db8:0:1::1", "2001:db8::1"]


def test_logins_are_told_with_what_proved_them_and_never_a_password(new_server: NewServer) -> None:
    server = new_server()
    for name, password in (("admin", "canary wrong"), ("canary typed into the name", "x")):
        body = {"username": name, "password": password}
        assert server.call("POST", "/api/v1/login", body, token=None).status == 401
    server.login()
    found = entries(server, system=True, action="login")
    told = [(one["outcome"], one["code"], one["actor"]["name"]) for one in found]
    assert told == [
        ("done", "", "admin"),
        ("refused", "bad-credentials", ""),
        ("refused", "bad-credentials", "admin"),
    ]
    assert found[0]["detail"]["by"] == "password"
    assert "canary" not in json.dumps(found)


def test_who_reads_which_chain(server: Server) -> None:
    project = server.new_project("watched")
    server.call("PUT", "/api/v1/secrets/s1", {"value": "long enough", "project": "watched"})
    roles: dict[str, tuple[str, ...]] = {
        "viewer": ("viewer",), "operator": ("operator",), "project-admin": ("project-admin",),
        "auditor": ("auditor",),
    }  # fmt: skip
    for name, given in roles.items():
        token = server.new_user(f"w-{name}", *given, project=project)
        for path in ("audit", "audit/chain"):
            answer = server.call("GET", f"/api/v1/{path}?project=watched", token=token)
            assert answer.status == (200 if name == "auditor" else 403)
            # The system's is for nobody of a project, and others' projects are not there.
            assert server.call("GET", f"/api/v1/system/{path}", token=token).status == 403
            hidden = server.call("GET", f"/api/v1/{path}?project=default", token=token)
            assert hidden.status == (404 if name == "auditor" else 403)
        if name == "auditor":
            shown = server.call("GET", "/api/v1/audit", token=token).json["items"]
            assert {one["project"] for one in shown} == {"watched"}
    admin = server.new_user("w-system", role="admin")
    assert server.call("GET", "/api/v1/system/audit", token=admin).status == 200
    assert server.call("GET", "/api/v1/audit?project=watched", token=admin).status == 403


def test_nothing_in_the_api_changes_an_entry() -> None:
    doors = [door for door in DOORS if "audit" in door.path]
    assert len(doors) == 4
    assert {door.method for door in doors} == {"GET"}


def test_an_operator_can_neither_read_nor_change_it(server: Server) -> None:
    operator = server.new_user("otto", "operator")
    for door in (one for one in DOORS if "audit" in one.path):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            answer = server.call(method, door.path, token=operator)
            assert answer.status == (403 if method == "GET" else 405)


def test_the_chain_of_a_project_that_is_no_more_stays_readable(server: Server) -> None:
    made = server.call("POST", "/api/v1/projects", {"name": "gone-soon"}).json["id"]
    path = f"/api/v1/system/audit/chain?chain={made}"
    assert server.call("GET", path).status == 404
    assert server.call("DELETE", "/api/v1/projects/gone-soon").status == 204
    shown = server.call("GET", path).json
    assert [one["action"] for one in shown["entries"]] == ["project.create", "project.delete"]
    assert made in {one["chain"] for one in entries(server, system=True, target="gone-soon")}


def test_filters_and_pages(server: Server) -> None:
    server.new_project("filtered")
    for number in range(5):
        path = f"/api/v1/secrets/f{number}"
        server.call("PUT", path, {"value": "long enough", "project": "filtered"})
    server.call("DELETE", "/api/v1/secrets/f3?project=filtered")

    def names(**query: Any) -> list[str]:
        return [one["target"]["name"] for one in entries(server, project="filtered", **query)]

    assert names(action="secret.*") == ["f3", "f4", "f3", "f2", "f1", "f0"]
    assert names(action="secret.delete") == ["f3"]
    assert names(target="f4") == ["f4"]
    assert names(actor="nobody") == []
    assert names(actor="admin", action="secret.set", address="127.0.0.1") != []
    assert names(outcome="refused") == []
    (first, *_, last) = entries(server, project="filtered", action="secret.*")
    assert names(since=first["at"]) == ["f3"]
    assert "f3" not in names(until=first["at"])[:1]
    assert names(since=last["at"], until=last["at"]) == []
    path, got = "/api/v1/audit?project=filtered&limit=2", []
    cursor = ""
    while cursor is not None:
        page = server.call("GET", f"{path}{cursor and f'&cursor={cursor}'}").json
        assert len(page["items"]) <= 2
        got += page["items"]
        cursor = page["next_cursor"]
    assert got == entries(server, project="filtered")
    assert server.call("GET", "/api/v1/audit?since=yesterday").status == 422
    assert server.call("GET", "/api/v1/audit?since=2030-01-01T00:00:00").status == 422
    assert server.call("GET", "/api/v1/audit?outcome=perhaps").status == 422


def verify(server: Server, **more: Any) -> Verified:
    with client(server) as asking:
        return Audit(asking).verify(project="tampered", **more)


TAMPERINGS = {
    "changed": ("UPDATE audit_entries SET actor_name = 'somebody else' WHERE number = 3", 3),
    "removed": ("DELETE FROM audit_entries WHERE number = 3", 3),
    "truncated": ("DELETE FROM audit_entries WHERE number >= 5", 5),
}


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_tampering_with_the_database_is_found_and_its_place_named(
    new_server: NewServer, kind: str, tmp_path: Path
) -> None:
    server = new_server()
    server.new_project("tampered")
    for number in range(6):
        path = f"/api/v1/secrets/t{number}"
        server.call("PUT", path, {"value": "long enough", "project": "tampered"})
    sign(server)
    assert verify(server).verdict.is_good
    with client(server) as asking:
        kept = tmp_path / "kept.jsonl"
        kept.write_bytes(b"".join(Audit(asking).export(project="tampered")))
    statement, number = TAMPERINGS[kind]
    chain = server.read(lambda c: c.execute(
        tables.projects.select().where(tables.projects.c.name == "tampered")).one().id)  # fmt: skip
    tamper(server, f"{statement} AND chain_id = :chain", chain=chain)
    broken = verify(server).verdict.broken
    assert broken is not None
    assert (broken.number, broken.what) == (number, kind)
    if kind == "truncated":
        # Who has the whole database can take the checkpoints along: then only what somebody has
        # seen before tells.
        head = server.read(lambda c: audits.rows.entry(c, chain, number - 1))
        assert head is not None
        tamper(server, "DELETE FROM audit_checkpoints WHERE chain_id = :chain", chain=chain)
        tamper(
            server, "UPDATE audit_chains SET number = :number, hash = :hash WHERE id = :chain",
            number=number - 1, hash=head.hash, chain=chain,
        )  # fmt: skip
        assert verify(server).verdict.is_good
        broken = verify(server, known=Export(kept).heads()).verdict.broken
        assert broken is not None
        assert (broken.number, broken.what) == (number, kind)


def test_an_export_is_verified_without_the_server_and_by_its_key_alone(
    new_server: NewServer, tmp_path: Path
) -> None:
    server = new_server()
    for number in range(7):
        server.call("PUT", f"/api/v1/secrets/t{number}", {"value": "long enough"})
    sign(server)
    key = server.parts.audit_key.public
    path = tmp_path / "audit.jsonl"
    with client(server) as asking:
        lines = list(Audit(asking).export(project="default"))
    path.write_bytes(b"".join(lines))
    server.stop()
    export = Export(path)
    assert export.is_whole
    verified = export.verify(key=key)
    assert verified.verdict.is_good
    assert verified.verdict.signed == verified.verdict.entries == 7
    assert read_key(verified.key) == key
    # Somebody who has no key of ours makes all of it anew, with one of their own.
    assert export.verify(key=b"\1" * 32).verdict.signed == 0
    shown = [json.loads(line) for line in lines]
    shown[3]["entry"]["actor"]["name"] = "forged"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in shown))
    broken = Export(path).verify(key=key).verdict.broken
    assert broken is not None
    assert (broken.number, broken.what) == (3, "changed")
    path.write_bytes(b"".join(lines[:4]))
    cut = Export(path)
    assert not cut.is_whole
    path.write_bytes(b"".join([*lines[:4], *lines[-2:]]))
    broken = Export(path).verify(key=key).verdict.broken
    assert broken is not None
    assert (broken.number, broken.what, broken.last) == (4, "truncated", 7)


def test_a_chain_that_nothing_has_signed_yet_is_signed_for_who_reads_it(
    new_server: NewServer, tmp_path: Path
) -> None:
    server = new_server()
    key = server.parts.audit_key.public
    path = tmp_path / "audit.jsonl"
    for count in (1, 2):
        server.call("PUT", f"/api/v1/secrets/t{count}", {"value": "long enough"})
        with client(server) as asking:
            verified = Audit(asking).verify(project="default", key=key)
            path.write_bytes(b"".join(Audit(asking).export(project="default")))
        for one in (verified, Export(path).verify(key=key)):
            assert one.is_good, one
            assert one.verdict.signed == one.verdict.entries == count
            assert one.signed_at is not None
        assert not Export(path).verify(key=b"\1" * 32).is_good
        # It was made for who asked: reading changes nothing.
        kept = server.read(audits.rows.last_checkpoints)
        assert access.DEFAULT_PROJECT not in kept
    sign(server)
    shown = server.call("GET", "/api/v1/audit/chain?project=default").json
    assert [one["number"] for one in shown["checkpoints"]] == [2]


def test_a_head_is_signed_by_the_key_of_today_or_not_at_all(server: Server) -> None:
    key = server.parts.audit_key
    nothing = audits.Stretch([], [], Head(0, b""))
    assert audits.signed_to_its_head(nothing, "p", key, at=1) == nothing
    head = Head(7, b"\7" * 32)
    former = key._replace(public=b"\1" * 32).checkpoint("p", head, at=1)
    found = audits.signed_to_its_head(audits.Stretch([], [former], head), "p", key, at=2)
    assert found.checkpoints == [former, key.checkpoint("p", head, at=2)]
    assert audits.signed_to_its_head(found, "p", key, at=3) == found


def test_a_chain_is_read_whole_however_many_pages_it_has(
    new_server: NewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_server()

    def many(tx: Any) -> None:
        for number in range(400):
            tx.audit(audit.Act("breaker.close", audit.SERVER, detail={"n": str(number)}))

    for _ in range(3):
        server.write(many)
        sign(server)
    with client(server) as asking:
        chains = Audit(asking)
        verified = chains.verify(system=True)
        assert verified.verdict.is_good
        assert verified.verdict.entries >= 1200
        pages: list[AuditChain] = []
        real = chains.chain

        def page(**asked: Any) -> AuditChain:
            pages.append(real(**asked))
            return pages[-1]

        monkeypatch.setattr(chains, "chain", page)
        exported = list(chains.export(system=True))
        assert len(exported) >= 1205
    # The first page has all checkpoints, the others those of their entries: a chain of years has
    # thousands.
    first, second, third = [[one.number for one in page.checkpoints] for page in pages]
    assert len(first) >= 3
    assert second == [number for number in first if 500 < number <= 1000]
    assert third == [number for number in first if number > 1000]
    assert second
    assert third
    head = Head(verified.verdict.head.number, verified.verdict.head.hash)
    assert server.read(lambda c: audits.rows.head(c, SYSTEM)) == head
