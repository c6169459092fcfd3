"""`POST /api/agents/register/` on a real socket."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request

from fleetwire.core.access import DEFAULT_PROJECT
from fleetwire.core.sparing import Sparing
from fleetwire.server.domain import enrolment, views
from fleetwire.server.gateway.enrolment import BODY_BYTES
from fleetwire.testing.heart import Heart, Serve

HERE = frozenset({DEFAULT_PROJECT})


async def post(one: Heart, body: bytes) -> tuple[int, dict[str, Any], str]:
    def send() -> tuple[int, dict[str, Any], str]:
        connection = http.client.HTTPConnection(urlsplit(one.http).netloc, timeout=10)
        try:
            connection.request("POST", "/api/agents/register/", body)
            response = connection.getresponse()
            return response.status, json.loads(response.read()), response.headers["content-type"]
        finally:
            connection.close()

    return await asyncio.to_thread(send)


def registration(token: str, **changes: object) -> bytes:
    key = base64.b64encode(bytes(32)).decode()
    fields = {
        "token": token,
        "name": "web-1",
        "signing_key": key,
        "sealing_key": key,
        "incarnation": "0123456789abcdef",
        "labels": {"os": "linux"},
        "agent_version": "0.1.0",
        **changes,
    }
    return json.dumps(fields).encode()


async def test_a_machine_becomes_a_node(serve: Serve) -> None:
    async with serve(loops=False) as one:
        token = await one.token(role="web")
        status, answer, kind = await post(one, registration(token))
        assert (status, kind) == (201, "application/json")
        assert answer["name"] == "web-1"
        assert answer["cluster"] == one.cluster_id
        key = one.signer.public_key
        assert answer["server_keys"] == [
            {"id": one.signer.key_id, "key": base64.b64encode(key).decode()}
        ]
        status, problem, kind = await post(one, registration(token, name="web-2"))
        assert (status, kind) == (401, "application/problem+json")
        assert problem["code"] == "bad-enrolment-token"
        assert "unknown, used, expired" in problem["detail"]
        assert token not in json.dumps(problem)


async def test_fifty_at_once_on_their_own_sockets_make_one_node(serve: Serve) -> None:
    async with serve(loops=False) as one:
        token = await one.token()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(post(one, registration(token, name=f"web-{number}")))
                for number in range(50)
            ]
        answers = [task.result() for task in tasks]
        assert sorted(status for status, _, _ in answers) == [201] + [401] * 49
        page = await one.database.read(lambda c: views.list_nodes(c, limit=100))
        assert len(page.items) == 1
        uses, _ = await one.database.read(
            lambda c: enrolment.list_uses(c, before=None, limit=100, within=HERE)
        )
        assert sorted(use.outcome for use in uses) == ["enrolled"] + ["refused: used before"] * 49
        audited = [found.entry for found in await one.audited("node.enrol")]
        told = sorted((entry.outcome, entry.code, entry.actor_kind) for entry in audited)
        used = ("refused", "used before", "stranger")
        assert told == [("done", "", "stranger"), *[used] * 49]
        assert {entry.address for entry in audited} == {"127.0.0.1"}
        assert token not in json.dumps([entry.detail for entry in audited])


async def test_a_flood_from_one_network_is_one_flood(serve: Serve) -> None:
    """Whoever has one IPv6 address has 2**64 of them."""

    async def come(one: Heart, address: str) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": registration("no-such-token")}

        request = Request({"type": "http", "method": "POST", "client": (address, 1)}, receive)
        assert (await one.enrolment.register(request)).status_code == 401

    async with serve(loops=False) as one:
        one.enrolment._refusals = Sparing(1, within_s=60.0, most_of_all=100)
        for address in ("2001:db8::1", "2001:db8::2", "2001:db8::ffff", "2001:db8:0:1::1"):
            await come(one, address)
        audited = [found.entry.address for found in await one.audited("node.enrol")]
        assert sorted(audited) == ["2001:db8:0:1::1", "2001:db8::1"]


async def test_a_taken_name(serve: Serve) -> None:
    async with serve(loops=False) as one:
        await post(one, registration(await one.token()))
        status, problem, _ = await post(one, registration(await one.token()))
        assert (status, problem["code"], problem["field"]) == (409, "name-taken", "name")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"not json", 422),
        (b"[" * 60_000, 422),
        (b'{"token": 5}', 422),
        (registration("t", surprise=1), 422),
        (registration("t", signing_key="!"), 422),
        (registration("t", name=""), 422),
        (registration("t" * 2000), 422),
        (registration("t", capacity=0), 422),
        (registration("nobody's"), 401),
        (b" " * (BODY_BYTES + 1), 413),
    ],
)
async def test_bad_bodies_get_a_problem_document(serve: Serve, body: bytes, status: int) -> None:
    async with serve(loops=False) as one:
        got, problem, kind = await post(one, body)
        assert (got, kind) == (status, "application/problem+json")
        assert problem["status"] == status
        assert problem["detail"]
