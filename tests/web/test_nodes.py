"""Who may have a link, decided in the console: a node is approved, another denied, one revoked."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from tests.web.test_console import System, page, sign_in, system, wrong

from fleetwire.testing.lab import PROGRAM

__all__ = ["page", "system", "wrong"]  # fixtures
pytestmark = [pytest.mark.browser, pytest.mark.slow]


def start_agent(system: System, name: str) -> subprocess.Popen[bytes]:
    """Start an agent whose node has to be approved."""
    made: Any = system.cli("tokens", "create", "--enrolment", "--approval")
    token = system.folder / f"{name}.token"
    token.touch(mode=0o600)
    token.write_text(made["token"])
    words = ["agent", "--server", system.url, "--name", name, "--token-file", str(token)]
    state = system.folder / name
    with (system.folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen([*PROGRAM, *words, "--state", str(state)], stdout=log, stderr=log)


def row(page: Page, name: str) -> Locator:
    """The row of a node in the table."""
    return page.get_by_role("link").filter(has_text=name)


def test_nodes_are_approved_denied_and_revoked(
    page: Page, system: System, wrong: list[str]
) -> None:
    agents = [start_agent(system, name) for name in ("waits", "stranger", "early")]
    try:
        decide(page, system)
    finally:
        for agent in agents:
            agent.terminate()
            agent.wait(20)
    # The page may have asked for the node once more just when it went; and one deed was refused.
    wrong[:] = [what for what in wrong if "404" not in what and "409" not in what]


def decide(page: Page, system: System) -> None:
    page.goto("/nodes")
    sign_in(page, system)
    row(page, "waits").click()
    facts = page.get_by_role("region", name="Facts")
    expect(facts.get_by_text("waiting for approval")).to_be_visible()
    page.get_by_role("button", name="Approve").click()
    expect(facts.get_by_text("waiting for approval")).to_have_count(0)
    expect(facts.get_by_text("online")).to_be_visible()

    page.goto("/nodes")
    row(page, "early").click()
    page.get_by_role("button", name="Deny").click()
    dialog = page.get_by_role("dialog", name="End the rights of early?")
    expect(dialog).to_be_visible()
    system.cli("nodes", "approve", "early")  # by somebody else, while the question is open
    expect(page.get_by_role("button", name="Revoke", include_hidden=True)).to_have_count(1)
    dialog.get_by_role("button", name="Deny").click()
    expect(page.get_by_text("does not wait for approval")).to_be_visible()
    expect(facts.get_by_text("online")).to_be_visible()

    page.goto("/nodes")
    for name, word in (("stranger", "Deny"), ("waits", "Revoke")):
        row(page, name).click()
        page.get_by_role("button", name=word).click()
        dialog = page.get_by_role("dialog", name=f"End the rights of {name}?")
        dialog.get_by_role("button", name="Leave it").click()
        expect(dialog).to_have_count(0)
        page.get_by_role("button", name=word).click()
        dialog.get_by_role("button", name=word).click()
        expect(page).to_have_url(re.compile(r"/nodes$"))
        expect(row(page, name)).to_have_count(0)


def assert_a_link_keeps_its_project(page: Page, system: System) -> None:
    """A node's name is its own in its project only: a run there is asked for in that project."""
    page.goto("/nodes")
    sign_in(page, system)
    row(page, "local-1").click()
    page.get_by_role("link", name="Run something here").click()
    expect(page).to_have_url(re.compile(r"/runs/new\?node=local-1&project=default$"))
    expect(page.get_by_label("Project", exact=True)).to_have_count(0)  # there is but one
    page.goto("/runs/new?node=local-1&project=elsewhere")
    expect(page.get_by_label("Project", exact=True)).to_contain_text("elsewhere")
    page.get_by_placeholder("uname -a").fill("true")
    with page.expect_request(lambda asked: asked.method == "POST") as sent:
        page.get_by_role("button", name="Run", exact=True).click()
    assert sent.value.post_data_json["project"] == "elsewhere"
    expect(page.get_by_text("There is no project 'elsewhere'")).to_be_visible()


def test_whoever_has_two_projects_says_in_which_one(
    page: Page, system: System, wrong: list[str]
) -> None:
    assert_a_link_keeps_its_project(page, system)
    system.cli("projects", "create", "web")
    page.goto("/runs/new")
    picker = page.get_by_label("Project", exact=True)
    expect(picker).to_contain_text("default")
    expect(page.get_by_role("button", name="os=linux")).to_be_visible()
    picker.click()
    page.get_by_role("option", name="web").click()
    # Its nodes are those that a run there may use: there are none.
    expect(page.get_by_role("button", name="os=linux")).to_have_count(0)
    page.get_by_label("Selector").fill("os=linux")
    page.get_by_placeholder("uname -a").fill("true")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text("There are no nodes yet.")).to_be_visible()
    wrong.clear()  # that the browser tells of the refusal
