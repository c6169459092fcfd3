"""The console as a person meets it: `fleetwire up` with three agents, and Debian's chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import (
    ConsoleMessage,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

from fleetwire.testing.lab import PROGRAM, free_port

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
CONSOLE = ROOT / "src/fleetwire/server/api/static/console"
# As root, without a screen, and without a word to anybody else.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 20_000
# Each tick waits for a line more of the file, so the test and not a clock says how far it is.
TICKS = """\
echo begun
echo "a word on stderr" >&2
printf '\\033[1;32mcoloured\\033[0m line\\n'
tail -n +1 -F "{feed}" 2>/dev/null
"""


class System:
    """`fleetwire up` in a folder of its own; `kill_all` leaves nothing of it alive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = {
            **{
                key: value
                for key, value in os.environ.items()
                if not key.startswith("FLEETWIRE_") and key != "PYTHONDONTWRITEBYTECODE"
            },
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_DATA_HOME": str(folder / "share"),
            "NO_COLOR": "1",
        }

    def start(self) -> None:
        """Start it and return when its agents are online."""
        words = ["up", "--agents", "3", "--port", str(self.port), "--data", str(self.data)]
        with (self.folder / "up.log").open("ab") as log:
            self._up = subprocess.Popen(
                [*PROGRAM, *words, "--output", "json"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=self._env,
            )  # fmt: skip
        assert self._up.stdout is not None
        with self._up.stdout as said:
            line = said.readline()
        assert line, (self.folder / "up.log").read_text()
        assert json.loads(line)["online"]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def password(self) -> str:
        return (self.data / "admin-password").read_text().strip()

    def server(self) -> psutil.Process | None:
        """The server among the children of `up`, when it runs."""
        for child in psutil.Process(self._up.pid).children():
            if child.status() != psutil.STATUS_ZOMBIE and "server" in child.cmdline():
                return child
        return None

    def cli(self, *words: str, stdin: str | None = None) -> Any:
        """Run a command to its end and return its JSON."""
        done = subprocess.run(
            [*PROGRAM, *words, "--output", "json"],
            env=self._env, input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def submit(self, script: str, *words: str) -> str:
        """Start a run from the command line and return its id."""
        return str(self.cli("run", *words, "--script", "-", "--detach", stdin=script)["id"])

    def kill_all(self) -> None:
        """Ask it to leave, then see to it that nothing is left: agents, spawners, shims, tasks."""
        self._up.terminate()
        try:
            self._up.wait(30)
        finally:
            self._up.kill()
            self._up.wait()
            mark = str(self.folder)
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or []
                if any(mark in word for word in words):
                    process.send_signal(signal.SIGKILL)


class Feed:
    """A file that a run's tasks print as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def say(self, line: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{line}\n")

    @property
    def script(self) -> str:
        return TICKS.format(feed=self.path)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    assert (CONSOLE / "index.html").exists(), "the console is not built: run ./dev console"
    made = System(tmp_path_factory.mktemp("console"))
    try:
        made.start()
        yield made
    finally:
        made.kill_all()


@pytest.fixture
def wrong() -> list[str]:
    """What a page must not do; a test that lets it happen on purpose clears it."""
    return []


@pytest.fixture
def page(system: System, wrong: list[str]) -> Iterator[Page]:
    """A page of a browser of its own. It fails the test on anything in `wrong`."""

    def heard(said: ConsoleMessage) -> None:
        # A 401 before the sign-in is how the console learns that it must ask.
        if said.type in {"error", "warning"} and "401" not in said.text:
            wrong.append(f"{said.type}: {said.text}")

    def asked(request: Request) -> None:
        if not request.url.startswith((system.url, "data:", "blob:")):
            wrong.append(f"another host: {request.url}")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=FLAGS, env=dict(os.environ)
        )
        try:
            context = browser.new_context(
                base_url=system.url, viewport={"width": 1280, "height": 800}, locale="en"
            )
            context.set_default_timeout(PATIENCE_MS)
            expect.set_options(timeout=PATIENCE_MS)
            opened = context.new_page()
            # A refused Content-Security-Policy is an event whatever the browser writes of it.
            opened.add_init_script(
                "addEventListener('securitypolicyviolation', event => console.error("
                "`policy: ${event.violatedDirective} ${event.blockedURI}`))"
            )
            opened.on("console", heard)
            opened.on("pageerror", lambda error: wrong.append(f"uncaught: {error}"))
            opened.on("request", asked)
            yield opened
        finally:
            browser.close()
    assert wrong == []


def sign_in(page: Page, system: System, name: str = "admin", password: str = "") -> None:
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password", exact=True).fill(password or system.password)
    page.get_by_role("button", name="Sign in").click()


def state(page: Page) -> Locator:
    """The badge beside the title of a run's page."""
    return page.get_by_role("heading", level=1).locator("xpath=..")


def assert_timeline_of_the_stop(page: Page) -> None:
    page.get_by_role("button", name="Why?").click()
    page.get_by_role("tab", name="Timeline").click()
    timeline = page.get_by_role("list", name="Timeline")
    expect(timeline.get_by_text("submitted by admin")).to_be_visible()
    expect(timeline.get_by_text("stop asked: stopped by admin")).to_have_count(3)
    expect(timeline.get_by_text(re.compile("^TERM sent"))).to_have_count(3)
    page.keyboard.press("Escape")


def assert_refusals_are_told(page: Page) -> None:
    """A wrong password is, and what only a newer server or a proxy before it would say."""
    page.get_by_label("Password", exact=True).fill("not this one")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("The user name or the password is wrong.")).to_be_visible()
    said = {"title": "Unauthorized", "status": 401, "code": "not-today", "detail": "Come again."}
    page.route("**/api/v1/login", lambda route: route.fulfill(status=401, json=said))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Come again.")).to_be_visible()
    page.unroute("**/api/v1/login")


def test_a_walk_through_the_console(page: Page, system: System, tmp_path: Path) -> None:
    page.goto("/nodes")
    expect(page).to_have_url(re.compile(r"/sign-in\?to="))
    assert_refusals_are_told(page)
    sign_in(page, system)

    expect(page).to_have_url(re.compile(r"/nodes$"))
    expect(page.get_by_text("3 of 3 online")).to_be_visible()
    page.get_by_role("link").filter(has_text="local-2").click()
    expect(page).to_have_url(re.compile(r"/nodes/[0-9a-f-]{36}$"))
    expect(page.get_by_role("region", name="Facts").get_by_text("online")).to_be_visible()
    expect(page.get_by_text("Inventory")).to_be_visible()
    expect(page.get_by_text(os.uname().release).first).to_be_visible()

    # A run begun on the command line, watched while it writes.
    feed = Feed(tmp_path / "feed")
    run = system.submit(feed.script, "--on", "os=linux", "--name", "Watched")
    page.goto("/runs")
    page.get_by_role("link").filter(has_text="Watched").click()
    expect(page).to_have_url(re.compile(f"/runs/{run}"))
    log = page.get_by_role("log")
    expect(log.get_by_text("begun", exact=True)).to_be_visible()
    expect(log.get_by_text("a word on stderr")).to_be_visible()
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    for n in range(1, 4):
        expect(log.get_by_text(f"apple {n}", exact=True)).to_have_count(0)
        feed.say(f"apple {n}")
        expect(log.get_by_text(f"apple {n}", exact=True)).to_be_visible()
    feed.say("one pear")

    tasks = page.get_by_role("navigation", name="Tasks")
    expect(tasks.get_by_role("button")).to_have_count(3)
    tasks.get_by_role("button").filter(has_text="local-3").click()
    expect(log.get_by_text("one pear")).to_be_visible()

    page.get_by_label("Search the log").fill("apple")
    expect(page.get_by_text("1 of 3", exact=True)).to_be_visible()
    page.get_by_label("Search the log").press("Enter")
    expect(page.get_by_text("2 of 3", exact=True)).to_be_visible()
    expect(log.locator("mark")).to_have_count(3)
    page.get_by_label("Search the log").fill("no such word")
    expect(page.get_by_text("No match")).to_be_visible()

    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(state(page).get_by_text("canceled")).to_be_visible()
    expect(tasks.get_by_text("canceled")).to_have_count(3)
    stop = page.get_by_role("button", name="Stop", exact=True)
    expect(stop).to_have_attribute("aria-disabled", "true")
    assert system.cli("runs", "show", run)["outcome"] == "canceled"

    assert_timeline_of_the_stop(page)
    page.get_by_role("button", name="admin").click()
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page).to_have_url(re.compile(r"/sign-in"))
    page.goto("/runs")
    expect(page).to_have_url(re.compile(r"/sign-in\?to="))


def test_a_run_written_in_the_console(page: Page, system: System, wrong: list[str]) -> None:
    page.goto("/runs/new")
    sign_in(page, system)
    page.get_by_label("Selector", exact=True).fill("os=plan9")
    page.get_by_placeholder("uname -a").fill("echo from the console; exit 3")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text(re.compile("matches no node|no node", re.IGNORECASE))).to_be_visible()
    # The browser tells of every refusal, and this one was wanted.
    assert [line for line in wrong if "422" not in line] == []
    wrong.clear()

    page.get_by_label("Selector", exact=True).fill("os=linux")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page).to_have_url(re.compile(r"/runs/[0-9a-f-]{36}"))
    expect(page.get_by_role("log").get_by_text("from the console")).to_be_visible()
    expect(state(page).get_by_text("failed")).to_be_visible()
    tasks = page.get_by_role("navigation", name="Tasks")
    expect(tasks.get_by_text("exit 3")).to_have_count(3)  # a fast run leaves nothing "running"
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_placeholder("uname -a")).to_have_value("echo from the console; exit 3\n")


def test_every_state_has_a_url_that_can_be_loaded(page: Page, system: System) -> None:
    page.goto("/nodes?q=local-2")
    sign_in(page, system)
    expect(page.get_by_label("Filter by name, label or address")).to_have_value("local-2")
    page.reload()
    expect(page.get_by_role("link").filter(has_text="local-2")).to_have_count(1)
    expect(page.get_by_role("link").filter(has_text="local-1")).to_have_count(0)


def test_long_lines_wrap_and_the_end_stays_in_view(page: Page, system: System) -> None:
    script = "for i in $(seq 1 900); do echo $i $(seq -s - 1 200) end-$i; done\n"
    run = system.submit(script, "--node", "local-1", "--name", "Long lines")
    page.goto(f"/runs/{run}")
    sign_in(page, system)
    log = page.get_by_role("log")
    expect(state(page).get_by_text("succeeded")).to_be_visible()
    expect(log.get_by_text("end-900")).to_be_attached()
    expect(log.get_by_text("end-900")).not_to_be_in_viewport(ratio=1)
    page.get_by_role("button", name="Wrap long lines").click()
    expect(log.get_by_text("end-900")).to_be_in_viewport(ratio=1)
    log.focus()
    log.press("Home")
    expect(log.get_by_text(re.compile(r"^1 1-2-.* end-1$"))).to_be_in_viewport(ratio=1)
    page.get_by_label("Search the log").fill("end-450")
    expect(log.locator("mark")).to_be_in_viewport(ratio=1)


def test_the_page_comes_back_with_the_server(
    page: Page, system: System, wrong: list[str], tmp_path: Path
) -> None:
    feed = Feed(tmp_path / "feed")
    run = system.submit(feed.script, "--node", "local-1", "--name", "Outlives the server")
    page.goto(f"/runs/{run}")
    sign_in(page, system)
    log = page.get_by_role("log")
    expect(log.get_by_text("begun", exact=True)).to_be_visible()

    server = system.server()
    assert server is not None
    server.kill()
    expect(page.get_by_text("The server does not answer.")).to_be_visible()
    feed.say("said meanwhile")
    expect(log.get_by_text("said meanwhile")).to_have_count(1)
    feed.say("said after")
    expect(log.get_by_text("said after")).to_have_count(1)
    expect(log.get_by_text("begun", exact=True)).to_have_count(1)
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    expect(page.get_by_text("The server does not answer.")).to_have_count(0)

    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(state(page).get_by_text("canceled")).to_be_visible()
    # What the browser says of a server that is away is no fault of the page.
    wrong[:] = [line for line in wrong if "ERR_" not in line]
