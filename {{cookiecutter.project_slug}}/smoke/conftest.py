"""Options and fixtures of the smoke suite, and its last words."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import NoReturn

import pytest

from .client import PATIENCE_WITH_THE_ILL, Client, Unreachable
from .report import Report

REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say what the suite needs to know."""
    group = parser.getgroup("smoke", "the smoke suite")
    group.addoption(
        "--base-url",
        default=os.environ.get("SMOKE_BASE_URL", "http://127.0.0.1:8000"),
        help="what to test, such as https://example.com (SMOKE_BASE_URL; the local port 8000)",
    )
    group.addoption(
        "--api-token",
        default=os.environ.get("API_TOKEN", ""),
        help="the deployment's API token (API_TOKEN); without it some checks are left out",
    )
    group.addoption("--ca", metavar="FILE", help="authority that signed the certificate (PEM)")
    group.addoption("--insecure", action="store_true", help="accept any certificate")
    group.addoption(
        "--connect", metavar="ADDRESS", help="speak to this address, wherever DNS leads the name"
    )
    group.addoption(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="how long the deployment may take to become ready (10)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker that names the log to look into."""
    config.addinivalue_line("markers", "log(part): whose log tells why the check failed")
    config.stash[REPORT] = Report(config.getoption("--base-url"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check health first, and the rate limit last: after it, nothing is accepted for a while."""
    order = {"test_health": 0, "test_rate_limit": 2}
    items.sort(key=lambda item: order.get(item.path.stem, 1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Collect what each check found."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    item.config.stash[REPORT].note(item, report)
    return report  # type: ignore[return-value]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say in the end, to a person, how it went."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    lines = config.stash[REPORT].lines()
    if reporter and lines:
        reporter.write_line("")
        for line in lines:
            reporter.write_line(line)


def give_up(config: pytest.Config, why: str) -> NoReturn:
    """End the run, because there is nothing that could be checked."""
    config.stash[REPORT].stopped = why
    pytest.exit("there is nothing to check", 2)


@pytest.fixture(scope="session")
def client(pytestconfig: pytest.Config) -> Client:
    """Return the client of the deployment, which answers; if it does not, the run ends here."""
    base_url: str = pytestconfig.getoption("--base-url")
    if not base_url.startswith(("http://", "https://")):
        give_up(pytestconfig, f"{base_url!r} is no address. Write it like https://example.com.")
    client = Client(
        base_url,
        pytestconfig.getoption("--api-token"),
        pytestconfig.getoption("--ca"),
        pytestconfig.getoption("--insecure"),
        pytestconfig.getoption("--connect"),
    )
    ends = time.monotonic() + pytestconfig.getoption("--wait")
    while True:
        try:
            ready = client.get("/readyz").status == 200
        except Unreachable as error:
            if time.monotonic() >= ends:
                give_up(pytestconfig, str(error))
            ready = False
        if ready:
            return client
        if time.monotonic() >= ends:
            client.patience = PATIENCE_WITH_THE_ILL
            return client
        time.sleep(0.2)


@pytest.fixture
def token(client: Client) -> str:
    """Return the API token; checks that need it are left out without one."""
    if not client.token:
        pytest.skip(client.no_token)
    return client.token
{% if cookiecutter.include_examples == "yes" %}


@pytest.fixture(scope="session")
def demo(client: Client) -> None:
    """Leave checks out where the project has no demo task."""
    # GET is answered with 405 where POST is possible; an empty body with 400 where it is allowed.
    if client.get("/api/v1/start-task").status == 404:
        pytest.skip("the project has no demo task")
    if not client.token and client.post("/api/v1/start-task", body=b"").status == 401:
        pytest.skip(f"only operators start the demo task, and {client.no_token}")


@pytest.fixture(scope="session")
def manifest(client: Client) -> None:
    """Leave checks out where the project has no manifest watcher."""
    if client.get("/api/v1/update-manifest").status == 404:
        pytest.skip("the project has no manifest watcher")
{% endif %}
