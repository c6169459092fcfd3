"""Nodes, their stories and the whole system, through HTTP."""

from __future__ import annotations

from collections.abc import Callable

from tests.server.api.conftest import Server

from fleetwire.server.api import views
from fleetwire.server.domain import breaker, node_story, nodes
from fleetwire.server.store import tables


def test_a_node_is_drained_and_resumed(server: Server) -> None:
    node = server.add_node("drains")
    answer = server.call("PATCH", "/api/v1/nodes/drains", {"admin": "draining"})
    assert answer.status == 200
    assert views.Node.model_validate(answer.json).admin == "draining"
    # What it has not confirmed is not shown as drained.
    assert server.call("GET", f"/api/v1/nodes/{node}").json["admin"] == "draining"
    assert server.call("PATCH", f"/api/v1/nodes/{node}", {"admin": "active"}).json["admin"] == (
        "active"
    )
    events = server.call("GET", f"/api/v1/nodes/{node}/events").json["items"]
    assert [event["text"] for event in events] == [
        "is now active, by admin", "is now draining, by admin",
    ]  # fmt: skip


def test_what_an_administrator_cannot_decide_is_refused(server: Server) -> None:
    server.add_node("refuses")
    for body in ({"admin": "drained"}, {"admin": "online"}, {}, {"admin": "active", "x": 1}):
        assert server.call("PATCH", "/api/v1/nodes/refuses", body).code == "bad-field"
    assert server.call("PATCH", "/api/v1/nodes/nobody", {"admin": "active"}).code == "not-found"


def test_a_node_that_is_gone_is_deleted(server: Server) -> None:
    node = server.add_node("gone")
    answer = server.call("DELETE", "/api/v1/nodes/gone")
    assert answer.json == {"id": node, "name": "gone", "lost": 0}
    assert server.call("GET", f"/api/v1/nodes/{node}").code == "not-found"
    assert server.call("DELETE", "/api/v1/nodes/gone").code == "not-found"


def test_a_node_with_a_link_needs_force(server: Server) -> None:
    node = server.add_node("busy")
    server.write(lambda tx: nodes.write_links(tx, nodes.Noticed(states={node: "online"})))
    refused = server.call("DELETE", "/api/v1/nodes/busy")
    assert (refused.status, refused.code) == (409, "node-at-work")
    assert "force" in refused.json["hint"]
    assert server.call("DELETE", "/api/v1/nodes/busy?force=2").code == "bad-field"
    assert server.call("DELETE", "/api/v1/nodes/busy?force=1").status == 200


def test_events_come_in_pages(server: Server) -> None:
    node = server.add_node("eventful")
    server.write(lambda tx: node_story.say_all(tx, [(node, str(n)) for n in range(5)]))
    path = "/api/v1/nodes/eventful/events?limit=2"
    first = server.call("GET", path).json
    assert [views.NodeEvent.model_validate(one).text for one in first["items"]] == ["4", "3"]
    second = server.call("GET", f"{path}&cursor={first['next_cursor']}").json
    third = server.call("GET", f"{path}&cursor={second['next_cursor']}").json
    assert [one["text"] for one in second["items"] + third["items"]] == ["2", "1", "0"]
    assert third["next_cursor"] is None
    wrong = server.call("GET", "/api/v1/nodes?limit=1").json["next_cursor"] or "AWE"
    assert server.call("GET", f"{path}&cursor={wrong}").code == "bad-field"


def test_the_system_and_its_breaker(server: Server) -> None:
    answer = server.call("GET", "/api/v1/system")
    assert views.System.model_validate(answer.json).breaker is None
    assert set(answer.json["nodes"]) == {"online", "unstable", "offline"}
    server.write(lambda tx: breaker.open_(tx, gone=11, of=20))
    shown = views.System.model_validate(server.call("GET", "/api/v1/system").json)
    assert shown.breaker is not None
    assert (shown.breaker.gone, shown.breaker.of) == (11, 20)
    closed = server.call("POST", "/api/v1/system/close-breaker")
    assert closed.status == 200
    assert closed.json["breaker"] is None
    assert server.call("POST", "/api/v1/system/close-breaker").status == 200


def test_a_timeline_comes_in_pages(server: Server) -> None:
    node = server.add_node("timed")
    run = server.submit(nodes=["timed"])["id"]
    server.wait(lambda: len(server.call("GET", f"/api/v1/runs/{run}/timeline").json["items"]) > 1)
    server.write(lambda tx: node_story.say(tx, node, "what happens to a node nothing runs on"))
    path = f"/api/v1/runs/{run}/timeline?limit=1"
    first = views.Timeline.model_validate(server.call("GET", path).json)
    assert (first.run, first.items[0].kind) == (run, "run")
    assert first.items[0].text == "submitted by admin"
    second = server.call("GET", f"{path}&cursor={first.next_cursor}").json
    assert second["items"][0]["text"] == "waits: node timed is offline"
    assert second["next_cursor"] is None
    assert server.call(
        "GET", "/api/v1/runs/0190b7f0-1c2d-7abc-8def-0123456789ab/timeline"
    ).code == ("not-found")


def test_a_node_that_was_approved_meanwhile_is_not_denied(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    node = server.add_node("late")
    wait = tables.nodes.update().where(tables.nodes.c.id == node).values(admin="waiting")
    server.write(lambda tx: tx.connection.execute(wait).rowcount)
    deny = "/api/v1/nodes/late?force=1&only=waiting"
    assert server.call("POST", "/api/v1/nodes/late/approve").status == 200
    late = server.call("DELETE", deny)
    assert (late.status, late.code) == (409, "not-waiting")
    assert "fleetwire nodes revoke late" in late.json["hint"]
    assert server.call("GET", "/api/v1/nodes/late").json["admin"] == "active"
    server.write(lambda tx: tx.connection.execute(wait).rowcount)
    assert server.call("DELETE", deny).json["name"] == "late"
    assert server.call("DELETE", deny).status == 404
