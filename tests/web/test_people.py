"""Secrets, users, roles and one's own account in the console, then a sign-in with a code."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Locator, Page, Response, expect
from tests.web.test_console import System, page, sign_in, system, wrong

from fleetwire.core import totp

__all__ = ["page", "system", "wrong"]  # fixtures
pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_secret_is_set_listed_and_deleted_and_never_shown(
    page: Page, system: System, wrong: list[str]
) -> None:
    value = "console-canary-41d7"
    page.goto("/secrets")
    sign_in(page, system)
    expect(page.get_by_text("There is no secret")).to_be_visible()
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108 - it wants a function
    for version in (1, 2):
        page.get_by_label("Name of the secret").fill("db")
        page.get_by_label("Value").fill(f"{value}\n{version}")
        page.get_by_role("button", name="Set it").click()
        expect(page.get_by_text(f"value {version}, set by admin")).to_be_visible()
        expect(page.get_by_label("Value")).to_have_value("")
    row = page.get_by_role("listitem").filter(has_text="db")
    expect(row.get_by_text("default")).to_be_visible()
    assert value not in page.content()
    row.get_by_role("button", name="Delete the secret").click()
    expect(page.get_by_text("There is no secret")).to_be_visible()
    # What is too short to be masked is refused, with the reason; it is in no answer either.
    page.get_by_label("Name of the secret").fill("db")
    page.get_by_label("Value").fill("short")
    page.get_by_role("button", name="Set it").click()
    expect(page.get_by_text("The secret is too short")).to_be_visible()
    assert [said for said in wrong if "422" not in said] == []
    wrong.clear()
    about = [answer for answer in answers if "/secrets" in answer.url and answer.status != 204]
    assert len(about) >= 6
    assert not [answer.url for answer in about if value in answer.text()]


def test_the_audit_says_who_did_what(page: Page, system: System, wrong: list[str]) -> None:
    hostile = "<img src=x onerror=alert(1)>" + "W" * 100
    system.cli("tokens", "create", hostile)
    run = system.submit("true", "--node", "local-1")
    page.goto("/runs")
    sign_in(page, system)
    page.get_by_role("link", name="Audit", exact=True).click()
    entries = page.get_by_role("list", name="Audit").locator("> li")
    made = entries.filter(has_text="run.create").first
    expect(made).to_contain_text("adminAPI token127.0.0.1run.create")
    expect(made).to_contain_text("done")
    made.get_by_role("link", name=run[:13]).click()
    expect(page).to_have_url(re.compile(f"/runs/{run}"))

    page.go_back()
    page.get_by_label("Of").click()
    page.get_by_role("option", name="Whole system").click()
    expect(page).to_have_url(re.compile(r"/audit\?system=1$"))
    token = entries.filter(has_text="token.create").filter(has_text="onerror")
    expect(token).to_contain_text(hostile)
    expect(page.locator("img[src=x]")).to_have_count(0)
    page.set_viewport_size({"width": 390, "height": 844})
    box = token.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert token.evaluate("row => row.scrollWidth <= row.clientWidth")

    page.get_by_label("Action").click()
    page.get_by_role("option", name="login", exact=True).click()
    expect(page.get_by_role("listbox")).to_have_count(0)  # it holds the focus until it is gone
    page.get_by_label("Who").fill("nobody")
    page.get_by_label("Who").press("Enter")
    expect(page).to_have_url(re.compile(r"/audit\?action=login&actor=nobody&system=1$"))
    expect(page.get_by_text("No entry matches this filter")).to_be_visible()
    page.get_by_role("button", name="Clear the filter").click()
    expect(token).to_be_visible()
    page.goto("/audit?system=1&until=2030-13-01")
    expect(page.get_by_text("until is no time")).to_be_visible()
    assert [said for said in wrong if "422" not in said] == []
    wrong.clear()

    # Pages of one entry, by the server's own cursor.
    one = "**/api/v1/system/audit?*"
    page.route(one, lambda asked: asked.continue_(url=asked.request.url.replace("=50", "=1")))
    page.goto("/audit?system=1")
    numbers = [number_of(entries)]
    page.get_by_role("button", name="Older").click()
    expect(entries).not_to_contain_text(f"#{numbers[0]}")
    assert number_of(entries) == numbers[0] - 1
    page.get_by_role("button", name="Newest").click()
    expect(entries).to_contain_text(f"#{numbers[0]}")


def number_of(entries: Locator) -> int:
    """The number in its chain of the one entry that is shown."""
    expect(entries).to_have_count(1)
    return int(re.findall(r"#(\d+)", entries.inner_text())[0])


def test_who_may_little_is_told_why(page: Page, system: System) -> None:
    made = system.cli("users", "create", "carl")
    system.cli("roles", "grant", "carl", "viewer")
    page.goto("/projects")
    sign_in(page, system, "carl", made["password"])
    button = page.get_by_role("button", name="Make a project")
    expect(button).to_have_attribute("aria-disabled", "true")
    page.get_by_role("button", name="carl", exact=True).focus()  # the last one of the menu
    page.keyboard.press("Tab")
    expect(button).to_be_focused()
    expect(page.get_by_text("Only a system admin makes projects.").first).to_be_visible()
    posted: list[str] = []
    page.on("request", lambda asked: posted.append(asked.url) if asked.method == "POST" else None)
    page.keyboard.press("Enter")
    button.click(force=True)
    page.get_by_role("link", name="default").click()
    expect(page).to_have_url(re.compile(r"/projects/default$"))
    assert posted == []
    expect(page.get_by_role("link", name="Audit")).to_have_count(0)
    page.goto("/audit")
    expect(page.get_by_text("The audit of a project is for its auditors")).to_be_visible()


def assert_users_are_added_and_disabled(page: Page) -> None:
    expect(page.get_by_role("heading", name="Users")).to_be_visible()
    page.get_by_label("User name").fill("ann")
    page.get_by_role("button", name="Add a user").click()
    expect(page.get_by_text("The password of ann. It is shown this once.")).to_be_visible()
    row = page.get_by_role("listitem").filter(has_text="ann")
    with page.expect_response("**/users/ann/password"):
        row.get_by_role("button", name="New password").click()
    page.get_by_label("User name").fill("bob")
    page.get_by_role("button", name="Add a user").click()
    expect(page.get_by_text("The password of bob. It is shown this once.")).to_be_visible()
    row.get_by_role("button", name="Disable").click()
    expect(row.get_by_text("disabled")).to_be_visible()
    row.get_by_role("button", name="Enable").click()
    expect(row.get_by_text("disabled")).to_have_count(0)


def test_a_walk_through_people_and_account(page: Page, system: System) -> None:
    page.goto("/users")
    sign_in(page, system)
    assert_users_are_added_and_disabled(page)
    page.get_by_role("link", name="Projects").click()
    expect(page.get_by_role("heading", name="Projects")).to_be_visible()
    page.get_by_label("Name").fill("web")
    page.get_by_role("button", name="Make a project").click()
    page.get_by_role("link", name="web", exact=True).click()
    expect(page).to_have_url(re.compile(r"/projects/web$"))
    page.get_by_label("User").fill("ann")
    page.get_by_label("Roles and grants").click()
    page.get_by_role("option", name="operator").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Save").click()
    ann = page.get_by_role("listitem").filter(has_text="ann")
    expect(ann.get_by_text("operator")).to_be_visible()

    page.goto("/account")
    page.get_by_placeholder("What is it for?").fill("ci")
    page.get_by_role("button", name="Make a token").click()
    expect(page.get_by_text("This is shown once.")).to_be_visible()
    expect(page.get_by_text("this one", exact=True)).to_be_visible()
    factor = page.locator("form").filter(has=page.get_by_role("button", name="Set up a second"))
    factor.get_by_label("Present password").fill(system.password)
    factor.get_by_role("button").click()
    uri = page.get_by_text(re.compile("^otpauth://")).first.inner_text()
    secret = totp.from_text(re.findall("secret=([A-Z2-7]+)", uri)[0])
    step = totp.step_of(time.time_ns() // 1000)
    page.get_by_label("Code", exact=True).fill(totp.code_at(secret, step))
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_text("10 recovery codes are left")).to_be_visible()

    page.get_by_role("button", name="admin", exact=True).click()
    page.get_by_role("menuitem", name="Sign out").click()
    sign_in(page, system)
    code = page.get_by_label("Code of your second factor")
    code.fill("000000")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("The code is wrong, too old, or was used already.")).to_be_visible()
    code.fill(totp.code_at(secret, step + 1))
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile(r"/runs$"))
