"""A machine as a newcomer has it: Debian with git and Python, a plain user, nothing else.

``bin/demo`` runs there for real. Of ``bin/test`` those files run that need what is lacking there,
one for each kind of it, and a few that need nothing. Left out, for the sake of time, are all others
that need nothing, and the faults.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import support
from machine import needs

pytestmark = needs("engine")

# tini stands for the init of a machine, which waits for the processes that lost their parent.
IMAGE = """
FROM python:3.13-slim-trixie
RUN apt-get update -qq && apt-get install -qq --yes --no-install-recommends git tini >/dev/null \\
    && useradd --create-home ada
USER ada
WORKDIR /home/ada/template
CMD ["tini", "--", "sleep", "infinity"]
"""

#: Runs in the container: the README's first command, a task, and Ctrl-C.
NEWCOMER = """
import json, signal, subprocess, sys, time, urllib.request

def ask(path, body=None):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request("http://127.0.0.1:8000" + path, body, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)

def wait(look):
    while demo.poll() is None:
        try:
            if found := look():
                return found
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit("bin/demo has ended.")

demo = subprocess.Popen(["bin/demo"])
wait(lambda: ask("/readyz"))
task = ask("/api/v1/start-task", b'{"duration": 1}')["task_id"]
wait(lambda: ask(f"/api/v1/task-status/{task}")["status"] == "SUCCESS")
print("It works.")
demo.send_signal(signal.SIGINT)
sys.exit(demo.wait())
"""

#: One file for each kind of thing that is not there …
LACKING = {
    "tests/targets/test_page.py": "needs Chromium (apt-get install chromium)",
    "tests/targets/test_compose_files.py": "needs a container engine with Compose (apt-get",
    "tests/targets/test_server_systemd.py": "needs a container engine with the image vps:debian-13",
    "tests/targets/test_nginx.py": "needs a container engine with the images nginx:1.26-trixie",
    "tests/targets/test_heroku.py": "npm); needs redis-server (apt-get install redis-server)",
    "tests/devtools/test_deploy_server.py": "needs ssh (apt-get install openssh-client)",
}
#: … and some that need nothing, or a Python that uv may be able to download.
THERE = [
    "tests/devtools/test_deploy.py",
    "tests/devtools/test_deploy_swarm.py",
    "tests/engine/test_current_task.py",
    "tests/generation/test_answers.py",
    "tests/targets/test_own_suite.py::test_the_suite_passes_with_other_answers[python_version=3.12]",
]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start such a machine, with the template as it stands; return the container's name."""
    clone = tmp_path_factory.mktemp("fresh") / "template"
    support.git("clone", "--quiet", "--no-hardlinks", str(support.ROOT), str(clone), cwd=Path("/"))
    support.copy_template(clone)
    name = f"test-fresh-{secrets.token_hex(3)}"

    def docker(*arguments: str | Path, text: str = "") -> None:
        subprocess.run(["docker", *arguments], input=text, check=True, text=True)

    docker("build", "--quiet", "--tag", name, "-", text=IMAGE)
    try:
        docker("run", "--detach", "--name", name, name)
        docker("cp", "--quiet", f"{clone}/.", f"{name}:/home/ada/template")
        docker("exec", "--user", "root", name, "chown", "-R", "ada:", "/home/ada/template")
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)
        docker("image", "rm", "--force", name)


def run(name: str, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command there as the plain user, in the template's folder."""
    return subprocess.run(
        ["docker", "exec", "--interactive", name, *command],
        input=text,
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_demo_runs_and_ends(newcomer: str) -> None:
    done = run(newcomer, "python3", "-", text=NEWCOMER)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "It works." in done.stdout


def test_what_the_machine_lacks_is_skipped_and_the_end_says_so(
    newcomer: str, report: support.Report
) -> None:
    done = run(newcomer, "bin/test", *LACKING, *THERE)

    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.partition(" what was tried ")[2]
    for line in table.splitlines()[1:-1]:
        report.add("fresh machine", line)
    for reason in LACKING.values():
        assert reason in table
    assert "on Debian: sudo apt-get install --yes chromium docker-buildx " in table


def test_with_strict_a_skip_is_a_failure(newcomer: str) -> None:
    done = run(newcomer, "bin/test", "--strict", "-n", "0", "tests/devtools/test_deploy_server.py")

    assert done.returncode == 1
    assert "nothing may be skipped with --strict" in done.stdout
