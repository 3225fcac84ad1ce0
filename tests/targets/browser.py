"""A headless browser on a running project, which watches what must never happen in it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import support
from machine import chromium, need
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Response

AXE_VERSION = "4.14.1"
#: Nothing that Chromium does by itself, such as looking for updates, shall disturb a test.
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_PATIENCE = 30_000  # milliseconds; reached only when something is broken
_REPORT_VIOLATIONS = """
window.policyViolations = [];
addEventListener("securitypolicyviolation", (event) =>
  window.policyViolations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


def launch(playwright: Playwright) -> Browser:
    """Start the Chromium of this machine."""
    return playwright.chromium.launch(executable_path=chromium(), args=list(_QUIET))


class Visitor:
    """One person with one browser window. Use it as a context manager.

    At its end there must have been no error in the console but for those that ``expected``
    matches, nothing against the Content-Security-Policy, and no request to another origin.
    """

    def __init__(self, browser: Browser, url: str, address: str, **options: Any) -> None:
        self.url = url
        self.expected = ""
        self.polls = 0
        self._responses: dict[str, Response] = {}
        self._wrong: list[tuple[str, str]] = []
        # The limits count by address, so each visitor has one.
        self._context = browser.new_context(
            base_url=url, extra_http_headers={"X-Forwarded-For": address}, **options
        )
        self._context.add_init_script(_REPORT_VIOLATIONS)
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(_PATIENCE)
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self._wrong.append(("error", str(error))))
        self.page.on("request", lambda request: self._note_request(request.url))
        self.page.on("response", self._note_response)

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        violations = [] if kind else self.page.evaluate("() => window.policyViolations ?? []")
        self._context.close()
        if kind is None:
            assert violations == []
            left = [
                said
                for said in self._wrong
                if not (self.expected and re.search(self.expected, said[1]))
            ]
            assert left == []

    def cookies(self) -> list[Any]:
        """Return the browser's cookies."""
        return list(self._context.cookies())

    def weights(self) -> dict[str, int]:
        """Return the size in bytes of all that was loaded, by path."""
        return {
            urlsplit(url).path: len(response.body())
            for url, response in self._responses.items()
            if response.status == 200
        }

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._wrong.append((message.type, message.text))

    def _note_request(self, url: str) -> None:
        self.polls += urlsplit(url).path.endswith("/live")
        if not url.startswith((f"{self.url}/", "data:", "blob:")):
            self._wrong.append(("request to another origin", url))

    def _note_response(self, response: Response) -> None:
        self._responses.setdefault(response.url, response)


class Process:
    """A process of the project, to start, stop and kill as often as a test wants."""

    def __init__(
        self, command: list[str], project: Path, log: Path, variables: dict[str, str]
    ) -> None:
        self.log = log
        self._command = [str(project / ".venv" / "bin" / command[0]), *command[1:]]
        self._project = project
        inherited = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
        self._environment = {**inherited, **variables}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, in a process group of its own."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._project,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it and all that it started, if it runs; with ``SIGKILL`` it cannot say goodbye."""
        if self._process is None:
            return
        if how == signal.SIGKILL:
            os.killpg(self._process.pid, how)
        else:
            self._process.send_signal(how)
        try:
            self._process.wait(_PATIENCE / 1000)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None


def axe_source() -> str:
    """Return axe-core, from npm; kept in .tools/ for the next run."""
    folder = support.ROOT / ".tools" / f"axe-core-{AXE_VERSION}"
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        need("npm")
        folder.mkdir(parents=True, exist_ok=True)
        support.succeed(
            "npm", "install", "--no-audit", "--no-fund", f"axe-core@{AXE_VERSION}", cwd=folder
        )
    return script.read_text(encoding="utf-8")


def axe_violations(page: Page, source: str) -> list[str]:
    """Return what axe-core finds wrong with the page, by the rules of WCAG 2.2 A and AA."""
    page.evaluate(source)
    found = page.evaluate(
        """async () => {
            const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
            const result = await axe.run({
              runOnly: tags, rules: { "target-size": { enabled: true } },
              resultTypes: ["violations"],
            });
            return result.violations.map((rule) =>
              `${rule.id}: ${rule.help}: ${rule.nodes.map((node) => node.html).join(" | ")}`);
        }"""
    )
    return list(found)
