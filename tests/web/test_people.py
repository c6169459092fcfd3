"""Users, roles and one's own account in the console, with a second factor at the next sign-in."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Page, expect
from tests.web.test_console import System, page, sign_in, system, wrong

from fleetwire.core import totp

__all__ = ["page", "system", "wrong"]  # fixtures
pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_walk_through_people_and_account(page: Page, system: System) -> None:
    page.goto("/users")
    sign_in(page, system)
    expect(page.get_by_role("heading", name="Users")).to_be_visible()
    page.get_by_label("User name").fill("ann")
    page.get_by_role("button", name="Add a user").click()
    expect(page.get_by_text("The password of ann. It is shown this once.")).to_be_visible()
    row = page.get_by_role("listitem").filter(has_text="ann")
    row.get_by_role("button", name="Disable").click()
    expect(row.get_by_text("disabled")).to_be_visible()
    row.get_by_role("button", name="Enable").click()
    expect(row.get_by_text("disabled")).to_have_count(0)

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
