"""Heroku: the project on dynos, with the add-on's smallest plan, behind a router like theirs."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import support
from machine import need
from targets.dynos import PLAN, Dyno, Heroku, KeyValueStore, Postgres, wait_until
from targets.router import Router

pytestmark = pytest.mark.xdist_group("heroku")

#: Memory of the smallest dynos that do not sleep, in MiB.
DYNO_MEMORY = 512
#: Durations of the stream of tasks, in seconds. The first is longer than a dyno's time to stop.
DURATIONS = [60, 0.1, 5, 0.5, 0.1, 1, 0.2, 3, 0.1, 0.3, 2, 0.1, 0.5, 0.2, 0.1, 0.1]


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Shows redirects instead of following them."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


@dataclass
class Site:
    """The application as a client sees it, through the router."""

    heroku: Heroku
    router: Router
    plain: Router
    web: Dyno
    worker: Dyno

    def request(
        self, method: str, path: str, body: Any = None, *, url: str = "", **headers: str
    ) -> tuple[int, Any, Any]:
        """Send a request; return status, headers and body."""
        context = ssl.create_default_context(cafile=str(self.router.certificate))
        data = None if body is None else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            (url or self.router.url) + path,
            data,
            {"Content-Type": "application/json", **headers},
            method=method,
        )
        opener = urllib.request.build_opener(
            NoRedirect, urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(request, timeout=35) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.headers, answer.read()

    def ready(self) -> bool:
        """Tell whether web and worker are there."""
        return self.request("GET", "/readyz")[0] == 200

    def start_task(self, duration: float) -> str | None:
        """Start a task as an operator; return its id, or None if it was not accepted."""
        token = f"Bearer {self.heroku.config['API_TOKEN']}"
        body = {"duration": duration}
        status, _, body = self.request("POST", "/api/v1/start-task", body, Authorization=token)
        return str(json.loads(body)["task_id"]) if status == 202 else None

    def state(self, task_id: str) -> str:
        """Return the state of a task."""
        status, _, body = self.request("GET", f"/api/v1/task-status/{task_id}")
        return str(json.loads(body)["status"]) if status == 200 else f"status {status}"


@pytest.fixture(scope="module")
def site(
    render: Callable[[support.Answers], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Return the application on a web and a worker dyno."""
    need("npm", "openssl", "redis-server")
    project = render({"use_heroku": "yes", "database": "postgresql"})
    folder = tmp_path_factory.mktemp("heroku")
    store = KeyValueStore(folder)
    heroku = Heroku(project, folder, store, support.free_port())
    database = Postgres(project, folder)
    heroku.config["DATABASE_URL"] = database.url
    heroku.config["RATELIMIT_ENQUEUE"] = "100000 per minute"
    heroku.config |= {"PUBLIC_DEMO": "yes", "PUBLIC_DASHBOARD": "yes"}
    try:
        with (
            Router(folder, heroku.port, tls=True) as router,
            Router(folder, heroku.port, tls=False) as plain,
        ):
            # The phase comes before the dynos, and makes the tables.
            heroku.start("release").process.wait(60)
            web, worker = heroku.start("web"), heroku.start("worker")
            site = Site(heroku, router, plain, web, worker)
            wait_until(site.ready, 60, f"{web.output}\n{worker.output}")
            yield site
    finally:
        heroku.stop()
        database.stop()
        store.stop()


def test_few_connections_are_open_at_rest_and_under_load(
    site: Site, report: support.Report
) -> None:
    """Web, worker and scheduler together leave room for one more process of the release phase."""
    store = site.heroku.store
    at_rest = store.connections()
    counts = [at_rest]
    ends = threading.Event()

    def use() -> dict[int, int]:
        statuses: dict[int, int] = {}
        while not ends.is_set():
            for method, path, body in (
                ("POST", "/api/v1/start-task", {"duration": 0}),
                ("GET", "/", None),
                ("GET", "/readyz", None),
                ("GET", "/api/v1/queues", None),
            ):
                status = site.request(method, path, body)[0]
                statuses[status] = statuses.get(status, 0) + 1
        return statuses

    with ThreadPoolExecutor(8) as pool:
        users = [pool.submit(use) for _ in range(8)]
        for _ in range(40):
            counts.append(store.connections())
            time.sleep(0.2)
        ends.set()
        found = [user.result() for user in users]
    refused = store.info("rejected_connections")
    requests = sum(sum(one.values()) for one in found)
    report.add(
        "heroku",
        f"connections: {at_rest} at rest, {max(counts)} at most in {requests} requests of 8 "
        f"clients; the plan allows {PLAN}",
    )
    # Who waits half a second in vain for one of the few connections is told to come again.
    assert {status for one in found for status in one} <= {200, 202, 503}
    assert sum(one.get(503, 0) for one in found) <= requests / 50
    assert refused == 0
    assert max(counts) < PLAN


@pytest.mark.parametrize("kind", ["slow to send and to read", "slow to leave"])
def test_clients_that_take_their_time_hold_up_nobody(
    site: Site, report: support.Report, kind: str
) -> None:
    """Fifty of them at the web dyno itself: the others are served, and they are let go."""
    host = b"Host: localhost\r\nX-Forwarded-Proto: https\r\n"
    post = b"POST /api/v1/start-task HTTP/1.1\r\nContent-Type: application/json\r\n" + host
    parts = {
        "slow to send and to read": [
            b"GET /healthz HTTP/1.1\r\n" + host,
            post + b'Content-Length: 1000\r\n\r\n{"duration',
            post + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{",
            b"GET /healthz HTTP/1.1\r\n" + host + b"X-Drip: ",
            (b"GET /static/style.css HTTP/1.1\r\n" + host + b"\r\n") * 30,
        ],
        # They keep their side open after the answer.
        "slow to leave": [b"GET /healthz HTTP/1.0\r\n" + host + b"\r\n"],
    }[kind]
    with contextlib.ExitStack() as stack:
        clients = {}
        for part in parts * (50 // len(parts)):
            one = stack.enter_context(socket.socket())
            # Little fits between the two, as in a real network.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            one.connect(("127.0.0.1", site.heroku.port))
            one.sendall(part)
            clients[one] = part
        began = time.monotonic()
        answers = [site.request("GET", "/healthz")[0] for _ in range(5)]
        longest = time.monotonic() - began
        if kind != "slow to leave":
            assert len(held(site, clients)) == 50, "The others had to wait until these had gone."

        def all_let_go() -> bool:
            for one, part in clients.items():
                if part.endswith(b"X-Drip: "):
                    with contextlib.suppress(OSError):
                        one.send(b"x")
            return not held(site, clients)

        wait_until(all_let_go, 90, "A client holds its thread.")
    assert answers == [200] * 5
    assert site.ready()
    report.add("heroku", f"50 clients {kind}: five others answered in {longest:.2f} s in all")


def held(site: Site, clients: Iterable[socket.socket]) -> list[socket.socket]:
    """Return the clients whose connection the web dyno has not ended, as the system knows it."""
    established = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        own, client, state = (field.rpartition(":")[2] for field in line.split()[1:4])
        if (int(own, 16), state) == (site.heroku.port, "01"):
            established.add(int(client, 16))
    return [one for one in clients if one.getsockname()[1] in established]


def test_dynos_have_room_in_their_memory(site: Site, report: support.Report) -> None:
    """Web and worker, after the load, need a part of a dyno's memory."""
    web, worker = site.web.memory(), site.worker.memory()
    report.add("heroku", f"memory: web {web:.0f} MiB, worker {worker:.0f} MiB of {DYNO_MEMORY}")
    assert max(web, worker) < DYNO_MEMORY / 2


def test_plain_http_leads_to_https(site: Site) -> None:
    """The router serves http:// as well; the application does not."""
    status, headers, _ = site.request("GET", "/api/v1/schedule?a=b", url=site.plain.url)
    assert status == 308
    assert headers["Location"] == f"https://{site.plain.host}/api/v1/schedule?a=b"


def test_static_files_may_be_kept(site: Site) -> None:
    """Without nginx, too, the page's files are asked for once, and served as they are."""
    page = site.request("GET", "/")[2].decode()
    paths = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert paths
    for path in paths:
        status, headers, body = site.request("GET", path)
        assert (status, bool(body)) == (200, True), path
        assert "immutable" in headers["Cache-Control"], path


def test_the_client_and_its_request_are_known_in_the_log(site: Site) -> None:
    """The address is the one that the router saw, whatever the client says of itself."""
    number = f"request-{time.time_ns()}-of-a-test"
    headers = {"X_Forwarded_For": "6.6.6.6", "X_Forwarded_Host": "evil", "X_Request_ID": number}
    status, answered, _ = site.request("GET", "/no-such-page", **headers)
    assert (status, answered["X-Request-ID"]) == (404, number)

    def lines() -> list[str]:
        return [line for line in site.web.messages() if f"request_id={number}" in line]

    wait_until(lambda: bool(lines()), 5, "There is no line of the request.")
    (line,) = lines()
    assert line.startswith("level=info ")
    assert "client=127.0.0.1 " in line
    assert "6.6.6.6" not in site.web.output


def test_each_dyno_says_once_that_the_certificate_is_not_checked(site: Site) -> None:
    """One line of each, and no other warning, but for what the load on few connections made."""
    for dyno in (site.web, site.worker):
        load = ("No connection available", "Rate limit storage unreachable")
        lines = [line for line in dyno.messages() if not any(words in line for words in load)]
        warnings = [line for line in lines if line.startswith("level=warning")]
        assert len(warnings) == 1, warnings
        assert "REDIS_TLS_VERIFY=none" in warnings[0]


def test_the_buildpacks_guesses_do_not_count(site: Site) -> None:
    """One process serves requests, and no second line is written for each of them."""
    assert site.web.output.count("Booting worker") == 1
    assert "HTTP/1.1" not in site.web.output


def test_the_release_phase_lets_a_good_configuration_pass(site: Site) -> None:
    """The phase ends by itself, and says what it saw."""
    release = site.heroku.start("release")
    release.process.wait(60)
    assert "The production settings can work." in release.output
    assert "Exited Successfully" in release.output


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("API_TOKEN", "", "API_TOKEN is not set."),
        ("DATABASE_URL", "", "DATABASE_URL"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT is 'xml'."),
        ("REDIS_URL", "rediss://:wrong@localhost:{port}", "Check REDIS_URL."),
        ("REDIS_TLS_VERIFY", "required", "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_the_release_phase_refuses(site: Site, name: str, value: str, said: str) -> None:
    """A configuration that cannot work ends the release with the reason."""
    value = value.format(port=site.heroku.store.port)
    release = site.heroku.start("release", {**site.heroku.config, name: value})
    release.process.wait(60)
    assert said in release.output
    assert "Exited Successfully" not in release.output


def test_no_task_is_lost_when_the_platform_stops_the_dynos(
    site: Site, report: support.Report
) -> None:
    """SIGTERM to all processes: what ends in time ends, the rest runs again after the restart."""
    tasks = {task: duration for duration in DURATIONS if (task := site.start_task(duration))}
    assert len(tasks) == len(DURATIONS)
    longest = max(tasks, key=lambda task: tasks[task])
    wait_until(lambda: site.state(longest) in ("STARTED", "PROGRESS"), 30, "It does not start.")

    began = time.monotonic()
    killed = site.worker.stop()
    took = time.monotonic() - began
    assert killed == [], site.worker.output[-5000:]
    # Not by halves unnoticed: it waits again, and says so.
    assert site.state(longest) == "PENDING"

    # A second time, while others are at work; the web dyno this time as well, which then has the
    # limit of requests that clients are used to.
    del site.heroku.config["RATELIMIT_ENQUEUE"]
    site.worker = site.heroku.start("worker")
    wait_until(lambda: site.state(longest) in ("STARTED", "PROGRESS"), 60, "It does not go on.")
    more = {task: 2.0 for _ in range(3) if (task := site.start_task(2.0))}
    threads = [threading.Thread(target=dyno.stop) for dyno in (site.web, site.worker)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    site.web, site.worker = site.heroku.start("web"), site.heroku.start("worker")
    wait_until(site.ready, 60, f"{site.web.output}\n{site.worker.output}")

    waiting = {**tasks, **more}

    def all_done() -> bool:
        for task in list(waiting):
            if site.state(task) == "SUCCESS":
                del waiting[task]
        return not waiting

    wait_until(all_done, 180, f"{waiting} did not end well.\n{site.worker.output[-5000:]}")
    report.add(
        "heroku",
        f"{len(tasks) + len(more)} tasks of 0.1 to 60 s, the dynos stopped twice: none lost "
        f"(the first stop took {took:.0f} s, nothing was killed)",
    )


def test_the_whole_smoke_suite_is_green(site: Site, report: support.Report) -> None:
    """After all of this, everything works from outside, over the router's TLS."""
    done = support.run(
        "uv", "run", "--quiet", "flask", "smoke", site.router.url, "--wait", "60",
        "--ca", site.router.certificate,
        cwd=site.heroku.project,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"{output}\n{site.web.output[-5000:]}"
    report.add("heroku", f"heroku local: {output.strip().splitlines()[-1]}")
