"""Walk the console as a person does, in Debian's chromium, against the mock or a real server.

    python web/e2e/smoke.py [--url http://127.0.0.1:8090] [--password admin] [--shots DIR]

Fails on a page that does not come, on an error in the browser's console (a refused
Content-Security-Policy is one) and on any request to another host.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TITLES = ("Inventory", "Rotate certificates", "Warm the build cache", "Nightly backup check")
RUNS_ARE_THERE = re.compile(r"\d+ of \d+ done|No runs yet")
NODES_ARE_THERE = re.compile(r"\d+ of \d+ online|No nodes yet")
SIZES = {"wide": (1280, 800), "narrow": (390, 844)}


def sign_in(page: Page, password: str) -> None:
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in").click()


def watch(page: Page, url: str, wrong: list[str]) -> None:
    """Collect what must not happen while a page is used."""

    def heard(said: ConsoleMessage) -> None:
        # A 401 before the sign-in is how the console learns that it must ask.
        if said.type == "error" and "401" not in said.text:
            wrong.append(said.text)

    def asked(request: Request) -> None:
        if not request.url.startswith((url, "data:", "blob:")):
            wrong.append(f"another host: {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", asked)


def walk(page: Page, password: str, selector: str) -> None:
    """Sign in with the way back, nodes, runs, a live run, search, the palette, a new run, stop."""
    page.goto("/nodes")
    expect(page).to_have_url(re.compile(r"/sign-in\?to="))
    sign_in(page, password)
    expect(page).to_have_url(re.compile(r"/nodes$"))
    expect(page.get_by_text("online").first).to_be_visible()

    page.goto("/runs/new")
    page.get_by_label("Selector", exact=True).fill(selector)
    page.get_by_placeholder("uname -a").fill(
        "for i in $(seq 1 40); do echo line $i; sleep 0.3; done"
    )
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page).to_have_url(re.compile(r"/runs/[0-9a-f-]{36}"))
    log = page.get_by_role("log")
    expect(log.get_by_text(re.compile(r"line 4\b"))).to_be_visible(timeout=15_000)
    expect(page.get_by_text("live", exact=True)).to_be_visible()

    page.get_by_label("Search the log").fill("line 2")
    expect(page.get_by_text(re.compile(r"^1 of \d+"))).to_be_visible()

    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(page.get_by_role("heading").locator("xpath=..").get_by_text("canceled")).to_be_visible(
        timeout=20_000
    )
    expect(page.get_by_role("button", name="Stop", exact=True)).to_have_attribute(
        "aria-disabled", "true"
    )

    tasks = page.get_by_role("navigation", name="Tasks")  # a run of one task has no list
    expect(tasks.get_by_text("running", exact=True)).to_have_count(0)

    page.keyboard.press("Control+k")
    page.keyboard.type("Nodes")
    expect(page.locator("[role=option][data-highlighted]")).to_have_text("Nodes")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/nodes$"))


def shoot(browser: Browser, url: str, password: str, folder: Path) -> None:
    """Every page at both sizes, light and dark, for a person to look at."""
    folder.mkdir(parents=True, exist_ok=True)
    for size, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            context = browser.new_context(
                base_url=url, viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page = context.new_page()

            def keep(name: str, page: Page = page, suffix: str = f"{size}-{scheme}") -> None:
                page.wait_for_load_state("networkidle" if name == "sign-in" else "load")
                page.wait_for_timeout(900)  # what is drawn late is part of the picture
                page.screenshot(path=folder / f"{name}-{suffix}.png")

            page.goto("/sign-in")
            keep("sign-in")
            sign_in(page, password)
            expect(page).to_have_url(re.compile(r"/runs$"))
            keep("runs")
            page.goto("/nodes")
            keep("nodes")
            expect(page.get_by_text(NODES_ARE_THERE).first).to_be_visible()
            if page.get_by_role("link").filter(has_text="web-1").count():
                page.get_by_role("link").filter(has_text="web-1").first.click()
                keep("node")
            page.goto("/runs/new")
            keep("new-run")
            page.goto("/audit")
            expect(page.get_by_role("heading", name="Audit")).to_be_visible()
            keep("audit")
            for title in TITLES:
                page.goto("/runs")
                expect(page.get_by_text(RUNS_ARE_THERE).first).to_be_visible()
                link = page.get_by_role("link").filter(has_text=title)
                if link.count():
                    link.first.click()
                    expect(page.get_by_role("heading", name=title)).to_be_visible()
                    keep(f"run-{title.split()[0].lower()}")
                    if size == "narrow" and page.get_by_role("log").count() == 0:
                        tasks = page.get_by_role("navigation", name="Tasks")
                        tasks.get_by_role("button").first.click()
                        keep(f"run-{title.split()[0].lower()}-log")
            page.keyboard.press("Control+k")
            keep("palette")
            context.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8090")
    parser.add_argument("--password", default="admin")
    parser.add_argument("--selector", default="os=linux", help="must match a node")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--shots", type=Path)
    options = parser.parse_args()
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=FLAGS)
        if options.shots:
            shoot(browser, options.url, options.password, options.shots)
        else:
            context = browser.new_context(
                base_url=options.url, viewport={"width": 1280, "height": 800}, locale="en"
            )
            page = context.new_page()
            watch(page, options.url, wrong)
            walk(page, options.password, options.selector)
        browser.close()
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
