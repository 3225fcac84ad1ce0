"""The page in a real browser: a running project with its worker and Redis, and Chromium.

The pictures of docs/images are made here too, with UPDATE_SCREENSHOTS=1; else they go to a
temporary folder.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import support
from devtools.dev.redis_server import EmbeddedRedis
from machine import needs
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from targets.browser import Process, Visitor, axe_source, axe_violations, launch
from targets.stack import PATIENCE

# Asked before Playwright starts, which needs more than Python by itself
pytestmark = needs("browser")

TOKEN = "a-token-that-only-the-tests-of-the-page-know"
IMAGES = support.ROOT / "docs" / "images"
#: Milliseconds, for what takes a few seconds of work besides.
SLOW = 40_000

expect.set_options(timeout=30_000)


@dataclass
class Site:
    """A running project: an open development server, a closed production one, one worker."""

    project: Path
    url: str
    closed_url: str
    redis: EmbeddedRedis
    web: Process
    worker: Process
    logs: Path

    def wait_until_ready(self) -> None:
        """Wait until the web servers answer and a worker has beaten."""
        deadline = time.monotonic() + PATIENCE
        for url in (self.url, self.closed_url):
            while not answers(f"{url}/readyz"):
                if time.monotonic() > deadline:
                    logs = "\n".join(log.read_text()[-3000:] for log in self.logs.glob("*.log"))
                    pytest.fail(f"{url} did not become ready.\n{logs}")
                time.sleep(0.1)


def answers(url: str) -> bool:
    """Tell whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture(scope="module")
def site(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start the project: Redis, a worker, and two web servers on the same data."""
    folder = tmp_path_factory.mktemp("page")
    redis = EmbeddedRedis(folder / "redis")
    redis.start()
    ports = {name: support.free_port() for name in ("development", "production")}
    shared = {
        "REDIS_URL": redis.url,
        "SECRET_KEY": "a-key-that-only-the-tests-of-the-page-know",
        "API_TOKEN": TOKEN,
        "FLASK_APP": support.DEFAULT_SLUG,
        "FLASK_SKIP_DOTENV": "1",
        "TRUSTED_PROXIES": "1",
        "RATELIMIT_SIGN_IN": "3 per hour",
        # The sample that the first web server serves
        "MANIFEST_URL": f"http://127.0.0.1:{ports['development']}/sample-manifest.json",
        "MANIFEST_INTERVAL": "3600",
    }
    web = {
        name: Process(
            ["gunicorn", "-c", "gunicorn.conf.py", f"{support.DEFAULT_SLUG}:create_app()"],
            generated,
            folder / f"{name}.log",
            {**shared, "FLASK_CONFIG": name, "BIND": f"127.0.0.1:{port}"},
        )
        for name, port in ports.items()
    }
    worker = Process(
        ["flask", "celery", "cluster"],
        generated,
        folder / "worker.log",
        {**shared, "FLASK_CONFIG": "development"},
    )
    processes = [*web.values(), worker]
    try:
        for process in processes:
            process.start()
        urls = [f"http://127.0.0.1:{port}" for port in ports.values()]
        site = Site(generated, urls[0], urls[1], redis, web["development"], worker, folder)
        site.wait_until_ready()
        yield site
    finally:
        for process in processes:
            process.stop()
        redis.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


Visit = Callable[..., Visitor]


@pytest.fixture(scope="module")
def visit(site: Site, browser: Browser) -> Visit:
    """Return a function that makes a visitor; ``closed`` is the one of the production server."""
    numbers = count(1)

    def make(closed: bool = False, **options: Any) -> Visitor:
        url = site.closed_url if closed else site.url
        return Visitor(browser, url, f"10.0.0.{next(numbers)}", **options)

    return make


def section(page: Page, name: str) -> Locator:
    """Return the part of the page with that heading."""
    return page.get_by_role("region", name=name, exact=True)


def start(page: Page, seconds: float, fail: bool = False) -> None:
    """Start a task by the form, and wait until its end of the form is done."""
    page.get_by_label("Seconds").fill(str(seconds))
    page.get_by_label("Let it fail half way").set_checked(fail)
    with page.expect_response(lambda response: response.request.method == "POST"):
        page.get_by_role("button", name="Start").click()


def wait_for_movement(bar: Locator) -> None:
    """Wait until a progress bar shows more than it does now."""
    seen = bar.evaluate("(bar) => bar.value")
    arguments = [bar.element_handle(), seen]
    bar.page.wait_for_function("([bar, seen]) => bar.value > seen", arg=arguments)


def sign_in(page: Page, token: str) -> None:
    """Sign in by the form."""
    page.goto("/sign-in")
    page.get_by_label("API token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def clear(page: Page) -> None:
    """Cancel all that runs or waits, and wait until it has gone."""
    for button in reversed(page.get_by_role("button", name="Cancel").all()):
        button.click()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0, timeout=SLOW)


# --- Tasks --------------------------------------------------------------------------------------


def test_a_task_from_the_form_moves_and_finishes_without_a_reload(visit: Visit) -> None:
    with visit() as visitor:
        page = visitor.page
        page.goto("/")
        page.evaluate("() => { window.neverReloaded = true }")
        expect(page.locator("#connection")).to_have_text("Live")

        start(page, 4)

        bar = section(page, "Running").get_by_role("progressbar")
        expect(bar).to_be_visible()
        wait_for_movement(bar)
        ended = section(page, "Finished lately")
        done = ended.locator("li", has_text="Task completed in 4 seconds")
        expect(done).to_contain_text("finished")
        expect(done).to_contain_text(re.compile(r"took [34]\.\d s"))
        expect(section(page, "Running")).to_contain_text("Nothing runs")
        # What a screen reader says
        expect(page.locator("#said")).to_have_text("long_task finished.")
        assert page.evaluate("() => window.neverReloaded")


def test_a_failed_task_shows_its_error(visit: Visit) -> None:
    with visit() as visitor:
        visitor.page.goto("/")
        start(visitor.page, 0.5, fail=True)

        failed = section(visitor.page, "Failed lately").locator("li").first
        expect(failed).to_contain_text("AskedToFail: Gave up at step")
        expect(failed.get_by_role("button")).to_have_count(0)


def test_a_running_and_a_waiting_task_are_cancelled(visit: Visit) -> None:
    with visit() as visitor:
        page = visitor.page
        page.goto("/")
        start(page, 60)
        expect(section(page, "Running").get_by_role("progressbar")).to_be_visible()
        start(page, 61)
        waiting = section(page, "Waiting")
        expect(waiting).to_contain_text("default 1")

        waiting.get_by_role("button", name="Cancel").click()
        ended = section(page, "Finished lately").locator(".badge.revoked")
        expect(ended).to_have_count(1)
        section(page, "Running").get_by_role("button", name="Cancel").click()
        expect(ended).to_have_count(2, timeout=SLOW)
        expect(section(page, "Running")).to_contain_text("Nothing runs")


def test_a_wrong_number_is_explained_on_the_page(visit: Visit) -> None:
    with visit() as visitor:
        visitor.expected = "400"
        page = visitor.page
        page.goto("/")
        page.locator("form.line").evaluate("(form) => { form.noValidate = true }")

        start(page, 10**9)

        expect(page.get_by_role("alert")).to_contain_text("must be a number from 0 to 3600")


def test_a_task_has_a_page_of_its_own_that_is_live_too(visit: Visit) -> None:
    with visit() as visitor:
        page = visitor.page
        page.goto("/")
        start(page, 3)
        section(page, "Running").get_by_role("link").click()

        expect(page.get_by_role("heading", name="long_task")).to_be_visible()
        expect(page.get_by_role("progressbar")).to_be_visible()
        expect(page.locator(".badge")).to_have_text("finished")
        expect(page.get_by_text("Task completed in 3 seconds")).to_be_visible()
        expect(page.locator("#connection")).to_have_text("The task has ended")


# --- Operators ----------------------------------------------------------------------------------


def test_who_signs_in_can_run_a_failed_task_again(visit: Visit) -> None:
    with visit() as visitor:
        page = visitor.page
        page.goto("/")
        start(page, 0.1, fail=True)
        failed = section(page, "Failed lately").locator("li").first
        expect(failed).to_be_visible()
        key = failed.get_attribute("data-key")

        sign_in(page, TOKEN)
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        old = page.locator(f'li[data-key="{key}"]')
        old.get_by_role("button", name="Run again").click()

        expect(old).to_have_count(0)
        again = section(page, "Failed lately").locator("li").first
        expect(again).to_contain_text("AskedToFail")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("link", name="Sign in").first).to_be_visible()
        expect(page.get_by_role("button", name="Run again")).to_have_count(0)


def test_a_message_that_no_worker_can_read_is_shown_as_given_up(visit: Visit, site: Site) -> None:
    in_redis(site, "client.lpush(f'{KEYS}default', 'no message at all')")
    with visit() as visitor:
        visitor.page.goto("/")
        given_up = section(visitor.page, "Given up")
        expect(given_up).to_contain_text("a message", timeout=SLOW)
    in_redis(site, "client.delete(f'{KEYS}background:refused')")


def test_wrong_tokens_are_refused_and_limited_and_the_right_one_is_not(visit: Visit) -> None:
    with visit() as visitor:
        visitor.expected = "401|429"
        page = visitor.page
        for _ in range(3):
            sign_in(page, "wrong")
            expect(page.get_by_role("alert")).to_have_text("This is not the token.")
        sign_in(page, "wrong")
        expect(page.get_by_role("heading", name="Too Many Requests")).to_be_visible()

        # A neighbour's guesses lock nobody out who knows it.
        sign_in(page, TOKEN)
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        assert visitor.cookies()[0]["httpOnly"]


def test_a_form_without_the_token_of_the_session_is_refused(visit: Visit) -> None:
    with visit() as visitor:
        visitor.expected = "403"
        page = visitor.page
        sign_in(page, TOKEN)
        expect(page.locator("#run-again")).to_be_attached()
        status = page.evaluate(
            """async () => (await fetch("/tasks/run-again",
                { method: "POST", body: new URLSearchParams({ task_id: "x" }) })).status"""
        )
        assert status == 403


def test_production_shows_its_numbers_to_operators_only(visit: Visit) -> None:
    with visit(closed=True) as visitor:
        visitor.expected = "403"
        page = visitor.page
        page.goto("/")
        expect(page.get_by_text("when they sign in")).to_be_visible()
        expect(page.get_by_text("Workers alive")).to_have_count(0)
        assert page.evaluate("async () => (await fetch('/live')).status") == 403

        sign_in(page, TOKEN)
        expect(page.get_by_text("Workers alive")).to_be_visible()
        expect(page.locator("#connection")).to_have_text("Live")
        cookie = visitor.cookies()[0]
        assert cookie["httpOnly"]
        assert cookie["secure"]
        assert cookie["sameSite"] == "Lax"


# --- When something is away ---------------------------------------------------------------------


def test_the_page_says_that_the_server_is_away_and_recovers(visit: Visit, site: Site) -> None:
    with visit() as visitor:
        visitor.expected = "ERR_CONNECTION|ERR_EMPTY|ERR_SOCKET|ERR_NETWORK|502"
        page = visitor.page
        page.goto("/")
        page.evaluate("() => { window.neverReloaded = true }")
        expect(page.locator("#connection")).to_have_text("Live")

        site.web.stop()
        expect(page.locator("#connection")).to_contain_text("Connection lost")
        start_form = page.get_by_role("button", name="Start")
        start_form.click()
        expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")

        site.web.start()
        expect(page.locator("#connection")).to_have_text("Live", timeout=SLOW)
        assert page.evaluate("() => window.neverReloaded")


def test_the_page_says_that_redis_is_away_and_recovers(visit: Visit, site: Site) -> None:
    with visit() as visitor:
        visitor.expected = "503"
        page = visitor.page
        page.goto("/")
        expect(section(page, "Workers")).to_be_visible()

        site.redis.stop()
        try:
            notice = page.locator("#live").get_by_text("Redis cannot be reached")
            expect(notice).to_be_visible()
            expect(page.locator("#connection")).to_contain_text("Redis is away")
            page.get_by_role("button", name="Start").click()
            expect(page.get_by_role("alert")).to_contain_text("Nothing was started")
        finally:
            site.redis.start()
        expect(section(page, "Workers")).to_contain_text("alive", timeout=SLOW)
        expect(page.locator("#connection")).to_have_text("Live")
        site.wait_until_ready()


def test_the_page_says_that_the_worker_is_silent_and_its_task_interrupted(
    visit: Visit, site: Site
) -> None:
    with visit() as visitor:
        page = visitor.page
        page.goto("/")
        start(page, 60)
        expect(section(page, "Running").get_by_role("progressbar")).to_be_visible()

        site.worker.stop(signal.SIGKILL)
        age_heartbeats(site)

        expect(page.get_by_text("The worker is silent.")).to_be_visible()
        expect(section(page, "Workers")).to_contain_text("silent")
        expect(section(page, "Running")).to_contain_text("Its worker went away")

        # What comes of the task is a test of faults; here the next tests want an empty queue.
        in_redis(site, "client.flushdb()")
        site.worker.start()
        expect(section(page, "Workers")).to_contain_text("alive", timeout=SLOW)


def age_heartbeats(site: Site) -> None:
    """Make the workers' last signs of life older than a silent worker's, so as not to wait."""
    in_redis(
        site,
        """
for name, record in client.hgetall(f"{KEYS}background:workers").items():
    at, _, said = record.decode().partition(" ")
    client.hset(f"{KEYS}background:workers", name, f"{float(at) - 120} {said}")
""",
    )


def in_redis(site: Site, code: str) -> None:
    """Run code with a ``client`` of the Redis, and KEYS, with which the project's keys begin."""
    support.succeed(
        site.project / ".venv" / "bin" / "python",
        "-c",
        f"import json, redis\nclient = redis.Redis.from_url({site.redis.url!r})\n"
        f"KEYS = {support.DEFAULT_SLUG + ':'!r}\n{code}",
        cwd=site.project,
    )


# --- Without a script, without a mouse, on a phone ----------------------------------------------


def test_everything_works_without_javascript(visit: Visit) -> None:
    with visit(java_script_enabled=False) as visitor:
        page = visitor.page
        page.goto("/")
        page.get_by_label("Seconds").fill("30")
        page.get_by_role("button", name="Start").click()

        expect(page.get_by_role("heading", name="long_task")).to_be_visible()
        page.get_by_role("link", name="All tasks").click()
        row = section(page, "Running").or_(section(page, "Waiting")).locator("li[data-task]")
        expect(row).to_have_count(1)
        page.get_by_role("link", name="Load the page again").click()
        row.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("heading", name="long_task")).to_be_visible()

        page.goto("/")
        page.get_by_label("Seconds").fill("0")
        page.get_by_label("Let it fail half way").check()
        page.get_by_role("button", name="Start").click()
        state = page.locator(".badge")
        reload = page.get_by_role("link", name="Load the page again")
        for _ in range(50):
            if state.inner_text() == "failed":
                break
            reload.click()
        expect(page.get_by_text("AskedToFail")).to_be_visible()

        sign_in(page, TOKEN)
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        page.get_by_role("button", name="Run again").first.click()
        expect(page.get_by_role("heading", name="long_task")).to_be_visible()


def test_the_keyboard_is_enough_and_news_do_not_disturb(visit: Visit) -> None:
    with visit() as visitor:
        page = visitor.page
        page.goto("/")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        page.get_by_label("Seconds").focus()
        page.keyboard.press("Control+a")
        page.keyboard.type("50")
        page.keyboard.press("Enter")
        cancel = section(page, "Running").get_by_role("button", name="Cancel")
        expect(cancel).to_be_visible()
        versions = section(page, "Manifest").get_by_role("group")
        versions.locator("summary").press("Enter")
        cancel.focus()
        wait_for_movement(page.get_by_role("progressbar"))

        expect(cancel).to_be_focused()
        expect(versions).to_have_attribute("open", "")
        page.keyboard.press("Enter")
        expect(section(page, "Running")).to_contain_text("Nothing runs", timeout=SLOW)
        # The button went with its task; whoever uses the keyboard goes on there, not at the top.
        expect(section(page, "Running").get_by_role("heading")).to_be_focused()


def test_the_page_rests_while_it_is_hidden_or_paused(visit: Visit) -> None:
    with visit() as visitor:
        page = visitor.page
        page.clock.install()
        page.goto("/")
        expect(page.locator("#connection")).to_have_text("Live")

        def hide(hidden: bool) -> None:
            page.evaluate(
                """(hidden) => {
                    const get = () => hidden;
                    Object.defineProperty(document, "hidden", { get, configurable: true });
                    document.dispatchEvent(new Event("visibilitychange"));
                }""",
                hidden,
            )

        hide(True)
        seen = visitor.polls
        page.clock.run_for(120_000)
        assert visitor.polls == seen

        with page.expect_response("**/live"):
            hide(False)
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#connection")).to_have_text("Paused")
        seen = visitor.polls
        page.clock.run_for(120_000)
        assert visitor.polls == seen
        with page.expect_response("**/live"):
            page.get_by_role("button", name="Pause").click()
        expect(page.locator("#connection")).to_have_text("Live")


@pytest.mark.parametrize("path", ["/", "/sign-in", "/nothing"])
def test_nothing_sticks_out_of_a_narrow_screen(visit: Visit, path: str) -> None:
    with visit(viewport={"width": 375, "height": 700}) as visitor:
        visitor.expected = "404"
        visitor.page.goto(path)
        width = visitor.page.evaluate("() => document.documentElement.scrollWidth")
        assert width <= 375


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong(visit: Visit, scheme: str) -> None:
    source = axe_source()
    with visit(color_scheme=scheme) as visitor:
        visitor.expected = "404"
        page = visitor.page
        sign_in(page, TOKEN)
        start(page, 0.1, fail=True)
        start(page, 30)
        start(page, 31)
        expect(section(page, "Running").get_by_role("progressbar")).to_be_visible()
        expect(section(page, "Failed lately")).to_be_visible()
        expect(section(page, "Waiting")).to_contain_text("default 1")
        assert axe_violations(page, source) == []
        section(page, "Running").get_by_role("link").click()
        expect(page.get_by_role("progressbar")).to_be_visible()
        assert axe_violations(page, source) == []
        page.goto("/")
        clear(page)
        page.get_by_role("button", name="Sign out").click()
        for path in ("/sign-in", "/nothing"):
            page.goto(path)
            assert axe_violations(page, source) == []


def test_all_of_it_is_small(visit: Visit, report: support.Report) -> None:
    with visit() as visitor:
        with visitor.page.expect_response("**/live"):
            visitor.page.goto("/")
        weights = visitor.weights()

    total = sum(weights.values())
    report.add("page", f"{total / 1000:.1f} KB in {len(weights)} answers: {json.dumps(weights)}")
    assert total < 60_000


# --- Pictures -----------------------------------------------------------------------------------


def test_pictures(visit: Visit, site: Site, tmp_path: Path) -> None:
    folder = IMAGES if os.environ.get("UPDATE_SCREENSHOTS") else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    wide = {"width": 1280, "height": 800}
    # Without what the other tests left in the lists
    in_redis(site, "client.delete(f'{KEYS}recent', f'{KEYS}background:failures')")
    with visit(viewport=wide) as visitor:
        page = visitor.page
        sign_in(page, TOKEN)
        start(page, 2)
        start(page, 0.5, fail=True)
        start(page, 16)
        start(page, 20)
        start(page, 30)
        progress = section(page, "Running").locator(".says")
        expect(progress).to_contain_text(re.compile(r"\b(3\d|4\d) %"), timeout=SLOW)
        page.screenshot(path=folder / "page.png", full_page=True)
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=folder / "page-dark.png", full_page=True)
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 375, "height": 812})
        page.screenshot(path=folder / "page-phone.png")
        page.set_viewport_size({"width": 1280, "height": 800})
        clear(page)
    with visit(viewport={"width": 1280, "height": 620}) as visitor:
        visitor.expected = "404"
        visitor.page.goto("/nothing-here")
        visitor.page.screenshot(path=folder / "error.png")
    assert len(list(folder.glob("*.png"))) == 4
