"""A project on a server of its own, set up and released to by ``flask deploy``.

The server is a container that boots Debian with systemd, 1 CPU and 512 MiB. test_server_systemd.py
and test_server_supervisor.py tell this story once each; ``MANAGER`` there names what keeps the
processes running, ``DATABASE`` where rows are; the second application has no database. The tests of
one server build on each other in the order of this file.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pre_gen_project
import pytest
import support
from machine import needs
from targets import migrations
from targets.server import (
    Load,
    Server,
    boot,
    certificate_for,
    nothing_changed,
    remove,
    wait_until,
)

pytestmark = needs("server")

SLUG = "garden_birds"
BACKUPS = f"/var/lib/{SLUG}-backups"
RESTORE = f"/opt/{SLUG}/current/deploy/redis/restore"


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest,
    render: Callable[[support.Answers], Path],
    tmp_path_factory: pytest.TempPathFactory,
    report: support.Report,
) -> Iterator[Server]:
    """Return a server that was set up and got its first release, checked by the smoke suite."""
    manager = request.module.MANAGER
    answers = {"domain_name": "birds.example.org", "database": request.module.DATABASE}
    project = render({"project_slug": SLUG, **answers})
    folder = tmp_path_factory.mktemp(f"server-{manager}")
    name = f"test-server-{manager}-{secrets.token_hex(3)}"
    server = boot(name, project, folder, manager)
    try:
        certificate_for(server)
        support.succeed("uv", "sync", "--quiet", "--locked", cwd=project)
        support.git_commit_all(project, "Begin")
        began = time.monotonic()
        server.setup()
        # Tests start more tasks than a visitor may, and as visitors.
        server.set_environment("RATELIMIT_ENQUEUE", "100000 per minute")
        server.set_environment("PUBLIC_DEMO", "yes")
        first = time.monotonic()
        server.release()
        report.add(
            f"{manager}",
            f"first setup {first - began:.0f} s, first release {time.monotonic() - first:.0f} s",
        )
        yield server
    finally:
        remove(name)


def test_the_first_release_passed_the_smoke_suite_over_https(server: Server) -> None:
    assert "everything works" in server.output
    assert f"https://{server.address}" in server.output
    assert server.get("/healthz", scheme="http").status == 308


def test_the_application_itself_answers_to_no_other_name(server: Server) -> None:
    """Whatever nginx lets through one day. Checks of the server's own are asked as localhost."""
    ask = f"curl -s -o /dev/null -w '%{{http_code}} ' --unix-socket /run/{SLUG}/web.sock"
    names = (server.host, "localhost", "evil.example", f"{server.host}.evil.example")
    said = [server.shell(f"{ask} http://localhost/healthz -H 'Host: {name}'") for name in names]
    assert [status.strip() for status in said] == ["200", "200", "400", "400"]


def test_a_second_setup_changes_nothing(server: Server, report: support.Report) -> None:
    began = time.monotonic()
    server.setup()
    report.add(server.manager, f"second setup {time.monotonic() - began:.0f} s")
    assert nothing_changed(server.output), server.output


def test_every_unit_is_valid_and_shut_in(server: Server, report: support.Report) -> None:
    units = server.shell(f"ls /etc/systemd/system | grep '^{SLUG}.*[.]'").split()
    units = [unit for unit in units if not unit.endswith(".wants")]
    assert server.shell(f"cd /etc/systemd/system && systemd-analyze verify {' '.join(units)}") == ""
    for unit in units:
        if unit.endswith(".service"):
            text = server.shell(f"systemd-analyze security --no-pager {unit} | tail -n 1")
            exposure = float(text.split(": ")[1].split()[0])
            report.add(server.manager, f"exposure of {unit}: {exposure}")
            assert exposure < 2, text


def test_nothing_but_ssh_and_the_web_is_open(server: Server) -> None:
    status = server.shell("ufw status verbose")
    assert "Default: deny (incoming)" in status
    opened = {line.split()[0] for line in status.splitlines() if "ALLOW IN" in line}
    assert opened == {"22/tcp", "80/tcp", "443/tcp"}
    listening = server.shell("ss -Htln").split()
    assert f"127.0.0.1:{server.redis_port()}" in listening
    assert not {"0.0.0.0:6379", "127.0.0.1:6379"} & set(listening)


def test_what_the_server_has_cannot_be_the_name_of_a_project(server: Server) -> None:
    """All that goes by such a name would be taken over: user, group, folders, target."""
    found = server.shell(
        "cut -d: -f1 /etc/passwd /etc/group; cd /; for it in etc opt run var/lib var/log;"
        "do find $it -mindepth 1 -maxdepth 1 -type d -printf '%f\\n'; done;"
        "systemctl list-unit-files --no-legend --type target | sed 's/[.]target.*//'"
    )
    names = {name for name in found.split() if pre_gen_project.SLUG.fullmatch(name)} - {SLUG}
    assert {"root", "mail", "nginx", "network"} <= names
    taken = []
    for name in sorted(names):
        try:
            pre_gen_project.check_slug(name)
        except pre_gen_project.Refused:
            continue
        taken.append(name)
    assert taken == []


def test_an_option_is_no_command(server: Server) -> None:
    """Root's shell, nginx and certbot read the domain."""
    for name in ("x.example.org;touch /tmp/ran", "x.example.org$(touch /tmp/ran)"):
        said = server.deploy("setup", "--domain", name, "--tls", "none", expect_failure=True)
        assert "domain" in said and "host name in lower case" in said
    assert server.shell("ls /tmp/ran 2>/dev/null || true") == ""


def test_a_server_that_ssh_shall_not_trust_is_not_touched(server: Server, tmp_path: Path) -> None:
    """The user's own `StrictHostKeyChecking yes` holds for all commands."""
    settings = (server.folder / "ssh_config").read_text()
    settings = settings.replace("StrictHostKeyChecking no", "StrictHostKeyChecking yes")
    settings = settings.replace(os.devnull, str(tmp_path / "known_hosts"))
    (tmp_path / "ssh_config").write_text(settings)
    stranger = replace(server, folder=tmp_path)
    before = server.shell("cat /etc/garden_birds/url")
    options = ["--domain", "other.example.org", "--tls", "none"]
    assert "known_hosts" in stranger.deploy("setup", *options, expect_failure=True)
    stranger.deploy("status", expect_failure=True)
    assert not (tmp_path / "known_hosts").exists()
    assert server.shell("cat /etc/garden_birds/url") == before


def test_idle_memory(server: Server, report: support.Report) -> None:
    """The bar is for what the application brings: its processes, its Redis and nginx.

    With a database, libraries come to it that it has not without: see the second application.
    """
    processes = server.memory()
    for process in processes:
        report.add(server.manager, f"{process.pss:6.1f} MiB  {process.name}")
    # nginx starts a worker for each processor that the kernel shows. Here that is the machine's; a
    # server of one processor has one.
    surplus = [process for process in processes if process.name == "nginx worker"][1:]
    counted = [one for one in processes if one.name != "supervisord" and one not in surplus]
    own = sum(process.pss for process in counted)
    report.add(server.manager, f"{own:6.1f} MiB  in all, but supervisord and {len(surplus)} nginx")
    assert own <= 280, processes


def test_the_configured_command_line_tools_answer(server: Server) -> None:
    assert "ready" in server.deploy("status")
    assert "worker@" in server.deploy("run", "--", "flask", "celery", "inspect", "ping")
    assert "ready." in server.deploy("logs", "--lines", "500")


def test_a_killed_process_comes_back(server: Server, report: support.Report) -> None:
    slowest = 0.0
    for name, pid in server.own_processes():
        if not server.has_process(pid):
            continue  # it ended with one that was killed before
        server.shell(f"kill -KILL {pid}")
        began = time.monotonic()
        wait_until(lambda: server.works(), f"{name} was killed: the application works again")
        slowest = max(slowest, time.monotonic() - began)
    report.add(server.manager, f"kill -9 of each process: works again within {slowest:.1f} s")


def test_a_release_under_load_loses_nothing(server: Server, report: support.Report) -> None:
    """It brings a migration, before which a backup is made."""
    migrations.write(server.project, migrations.GOOD)
    server.commit("docs/note.md", "A change.\n")
    before = server.current_release()
    began = time.monotonic()
    with Load(server, requests_per_second=50, tasks_per_second=2) as load:
        wait_until(lambda: load.answered > 50, "requests are answered")
        server.release()
        took = time.monotonic() - began
        seen = load.answered
        wait_until(lambda: load.answered > seen + 50, "requests are answered after the release")
    report.add(
        server.manager,
        f"release under load {took:.0f} s: {load.answered} requests, {len(load.failures)} failed, "
        f"slowest {load.slowest:.1f} s; {len(load.tasks)} tasks",
    )
    assert server.current_release() != before
    assert load.failures == []
    assert "8/8 The smoke suite" in server.output
    assert f"/before-{server.current_release()}." in server.shell(f"find {BACKUPS}/")
    # What has not changed is not installed again.
    assert len(server.shell(f"ls /opt/{SLUG}/venvs").split()) == 1
    wait_until(lambda: not load.tasks_to_do(), "all tasks are done", seconds=90)


BROKEN = {
    "raises at import": (
        "{slug}/ops/health.py",
        "\nimport os\n\nif os.environ.get('FLASK_CONFIG') == 'production':\n"
        "    raise RuntimeError('broken on purpose')\n",
    ),
    "fails its health check": (
        "{slug}/ops/health.py",
        "\n\n@bp.before_app_request\ndef refuse() -> tuple[str, int]:\n    return 'no', 500\n",
    ),
    "lacks a setting": (
        "{slug}/config.py",
        "\n\nif os.environ.get('FLASK_CONFIG') == 'production' and not os.environ.get('NEW'):\n"
        "    raise ConfigError('NEW is not set.')\n",
    ),
    "does not serve": (
        "gunicorn.conf.py",
        "\n\ndef when_ready(server):\n    raise RuntimeError('broken on purpose')\n",
    ),
    "has workers that do not start": (
        "{slug}/demo/tasks.py",
        "\nfrom celery import signals\n\n\n@signals.worker_init.connect(weak=False)\n"
        "def refuse(**_):\n    raise SystemExit('broken on purpose')\n",
    ),
    "fails the smoke suite": (
        "{slug}/ops/health.py",
        "\n\n@bp.after_app_request\ndef unset(response: Response) -> Response:\n"
        "    response.headers['X-Frame-Options'] = 'ALLOWALL'\n    return response\n",
    ),
}
#: What is tried on which server: the first four end before the process manager is asked, and the
#: fifth takes minutes under systemd, which waits for the workers to say that they are ready.
TRIED = {
    "systemd": [fault for fault in BROKEN if fault != "has workers that do not start"],
    "supervisor": ["has workers that do not start", "fails the smoke suite"],
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Break a release in those ways that are tried on the server of this file."""
    if "fault" in metafunc.fixturenames:
        metafunc.parametrize("fault", TRIED[metafunc.module.MANAGER])


def test_a_broken_release_goes_back_by_itself(
    server: Server, fault: str, report: support.Report
) -> None:
    path, text = BROKEN[fault]
    path = path.format(slug=SLUG)
    before = server.current_release()
    good = (server.project / path).read_text()
    server.commit(path, good + text)
    try:
        with Load(server, requests_per_second=10, tasks_per_second=0) as load:
            wait_until(lambda: load.answered > 10, "requests are answered")
            server.release(expect_failure=True)
    finally:
        server.commit(path, good)
    report.add(
        server.manager,
        f"release that {fault}: {load.answered} requests, {len(load.failures)} failed meanwhile",
    )
    assert server.current_release() == before
    assert load.failures == []
    assert server.works()


def test_a_migration_that_fails_ends_the_release(server: Server, report: support.Report) -> None:
    before = server.current_release()
    file = migrations.write(server.project, migrations.BAD, "9999_bad")
    support.git_commit_all(server.project, "A migration that fails")
    try:
        with Load(server, requests_per_second=10, tasks_per_second=0) as load:
            wait_until(lambda: load.answered > 10, "requests are answered")
            said = server.release(expect_failure=True)
    finally:
        file.unlink()
        support.git_commit_all(server.project, "Without it")
    report.add(
        server.manager,
        f"migration that fails: {load.answered} requests, {len(load.failures)} failed meanwhile",
    )
    assert "nonsense" in said and "what ran before runs on" in said
    assert server.current_release() == before
    assert load.failures == []
    # What it did before it failed is undone.
    with pytest.raises(AssertionError, match=r"no such table|does not exist"):
        server.sql("SELECT * FROM half_done")


def test_rollback(server: Server) -> None:
    before = server.current_release()
    migrations.write(server.project, migrations.OTHER, "9999_other")
    server.commit("docs/note.md", "Another change.\n")
    server.release("--no-smoke")
    after = server.current_release()
    assert after != before
    said = server.deploy("rollback")
    assert f"{before} goes on with it: 9999_other" in said
    assert server.current_release() == before
    assert server.works()
    assert after not in server.shell(f"ls /opt/{SLUG}/releases")


def test_uncommitted_files_are_refused(server: Server) -> None:
    note = server.project / "docs" / "note.md"
    note.write_text("Not committed.\n")
    try:
        assert "docs/note.md" in server.release(expect_failure=True)
    finally:
        support.git("checkout", "--quiet", "docs/note.md", cwd=server.project)


def test_a_dry_run_does_nothing(server: Server) -> None:
    before = server.shell(f"ls /opt/{SLUG}/releases")
    server.deploy("release", "--dry-run")
    server.deploy("rollback", "--dry-run")
    assert f"File /etc/{server.slug}/url" in server.setup("--dry-run"), "It says what it would do."
    assert server.shell(f"ls /opt/{SLUG}/releases") == before


def test_a_backup_can_be_fetched_tried_and_restored(server: Server, tmp_path: Path) -> None:
    """Tasks that waited when it was made, and were lost since then, are done after all."""
    server.manage("stop", "worker")
    tasks = [server.start_task(0) for _ in range(3)]
    file = tmp_path / "of the server.rdb"
    assert str(file) in server.deploy("backup", str(file))
    assert file.stat().st_mode & 0o077 == 0
    assert ", 3 waiting tasks, 0 at work" in server.deploy("drill")
    assert ", 3 waiting tasks, 0 at work" in server.deploy("status", expect_failure=True)
    server.redis("flushall")

    assert "Go on?" in server.deploy("restore", str(file), expect_failure=True)
    assert server.get(f"/api/v1/task-status/{tasks[0]}").status == 404
    server.deploy("restore", "--yes", str(file))

    wait_until(lambda: all(map(server.task_is_done, tasks)), "the tasks of the backup are done")
    assert "rdb" not in server.shell("ls /var/tmp")
    wait_until(lambda: server.works(), "the application works after the restore")
    server.deploy("status")


def test_the_database_can_be_fetched_and_restored(server: Server, tmp_path: Path) -> None:
    """What came into the database after the backup is gone, and the application works on."""
    server.deploy("backup", str(tmp_path / "server.rdb"))
    (file,) = (it for it in tmp_path.iterdir() if it.suffix in (".dump", ".sqlite"))
    assert file.stat().st_mode & 0o077 == 0
    server.sql("INSERT INTO of_a_test VALUES (1)")
    (tmp_path / "bad.dump").write_text("no backup")
    said = server.deploy("restore", "--yes", str(tmp_path / "bad.dump"), expect_failure=True)
    assert "nothing was changed" in said
    assert server.sql("SELECT count(*) FROM of_a_test") == "1"
    server.deploy("restore", "--yes", str(file))
    assert server.sql("SELECT count(*) FROM of_a_test") == "0"
    wait_until(lambda: server.works(), "the application works after the restore")
    today = server.shell("date +%F").strip()
    assert f"well: {today}{file.suffix}, 0 hours old" in server.deploy("drill")


def test_a_backup_that_cannot_be_restored_is_told(server: Server) -> None:
    """The drill finds it before somebody needs it."""
    broken = f"{BACKUPS}/2999-12-31.rdb"
    newest = f"{BACKUPS}/$(date +%F).rdb"
    server.shell(f"head -c 60 {newest} >{broken}; chown --reference={newest} {broken}")
    try:
        for command in ("drill", "status"):
            said = server.deploy(command, expect_failure=True)
            assert f"failed: Redis does not start with {broken}" in said
    finally:
        server.shell(f"rm {broken}")
    assert "2999" not in server.deploy("drill")


def test_the_application_cannot_touch_its_backups(server: Server) -> None:
    """Who takes the application over shall not take away what it can be restored from."""
    assert server.shell(f"ls {BACKUPS}/").split()
    for command in (f"ls {BACKUPS}/", f"rm -rf {BACKUPS}/*", f"cat {BACKUPS}/$(date +%F).rdb"):
        server.shell(f"! runuser -u {SLUG} -- sh -c '{command} | grep .'")
    assert server.shell(f"ls {BACKUPS}/").split()


def test_what_is_no_backup_stops_nothing(server: Server, tmp_path: Path) -> None:
    server.redis("set kept still")
    (tmp_path / "half.rdb").write_bytes(b"REDIS0012 and no more")
    before = server.main_pid("web"), server.main_pid("worker")
    said = server.deploy("restore", "--yes", str(tmp_path / "half.rdb"), expect_failure=True)
    assert "nothing was changed" in said
    said = server.shell(f"{RESTORE} /root/missing.rdb 2>&1 && echo restored || true")
    assert "nothing was changed" in said, said
    assert (server.main_pid("web"), server.main_pid("worker")) == before
    assert server.redis("get kept") == "still"


def test_a_backup_that_redis_does_not_start_with_is_taken_back(server: Server) -> None:
    """It is a good file, of a Redis with more databases than ours has."""
    server.shell(
        "mkdir /tmp/other; redis-server --port 7777 --dir /tmp/other --daemonize yes >/dev/null;"
        "until redis-cli -p 7777 -n 9 set a b; do sleep 0.1; done;"
        "redis-cli -p 7777 save; redis-cli -p 7777 shutdown nosave; redis-check-rdb /tmp/other/*"
    )
    server.redis("set kept still")
    said = server.shell(f"{RESTORE} /tmp/other/dump.rdb 2>&1 && echo restored || true")
    assert "what was there before is back" in said, said
    assert server.redis("get kept") == "still"
    wait_until(lambda: server.works(), "the application works again")


def test_a_reboot_needs_no_hand(server: Server, report: support.Report) -> None:
    began = time.monotonic()
    subprocess.run(["docker", "restart", server.name], check=True, capture_output=True)
    wait_until(lambda: server.works(), "the application works after a reboot")
    report.add(server.manager, f"reboot: works again within {time.monotonic() - began:.0f} s")
    assert "everything works" in server.smoke()


@dataclass
class Cut:
    """The tasks that had been accepted when the power went, and when it was back."""

    tasks: list[str]
    ended: float


@pytest.fixture(scope="module")
def cut(server: Server) -> Cut:
    """Cut the power while tasks wait and run. Tests go on meanwhile: it takes half a minute."""
    # Past nginx, which would slow a single client down.
    post = (
        f"curl -sf --unix-socket /run/{SLUG}/web.sock http://localhost/api/v1/start-task "
        "-H 'Content-Type: application/json' -d '{\"duration\": 0.05}'; echo"
    )
    answers = server.shell(f"for _ in $(seq 200); do {post}; done").split("\n")
    tasks = [json.loads(answer)["task_id"] for answer in answers if answer]
    assert len(tasks) == 200
    subprocess.run(["docker", "kill", server.name], check=True, capture_output=True)
    subprocess.run(["docker", "start", server.name], check=True, capture_output=True)
    wait_until(lambda: server.works(), "the application works after a power cut")
    return Cut(tasks, time.monotonic())


@pytest.fixture(scope="module")
def second(
    server: Server,
    render: Callable[[support.Answers], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Server:
    """Return the same server for another project, whose owner comes as another user than root.

    Her ssh comes by another port, and she becomes root through sudo.
    """
    project = render({"project_slug": "my_app", "domain_name": "second.example.org"})
    support.succeed("uv", "sync", "--quiet", "--locked", cwd=project)
    support.git_commit_all(project, "Begin")
    second = server.beside(project, "second.example.org", tmp_path_factory.mktemp("second"))
    server.shell(
        "useradd -m -s /bin/bash ada; echo 'ada ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/ada;"
        "cp -r /root/.ssh /home/ada; chown -R ada: /home/ada/.ssh;"
        "printf 'Port 22\\nPort 2222\\n' >/etc/ssh/sshd_config.d/ports.conf; systemctl restart ssh;"
        "ufw --force reset >/dev/null"
    )
    second.login = f"ada@{server.address}:2222"
    return second


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize(
    ("make", "take_away", "name"),
    [
        ("useradd my_app", "userdel my_app", "the user my_app"),
        ("mkdir /opt/my_app", "rmdir /opt/my_app", "/opt/my_app"),
    ],
)
def test_what_somebody_else_made_is_not_taken_over(
    second: Server, make: str, take_away: str, name: str
) -> None:
    second.shell(make)
    said = second.setup(expect_failure=True)
    assert name in said and "`flask deploy setup` did not make that" in said
    assert second.shell("ls -d /etc/my_app /var/lib/my_app 2>/dev/null || true") == ""
    second.shell(take_away)


def test_without_the_port_of_ssh_the_firewall_stays_off(second: Server) -> None:
    """It would let port 22 in alone, and shut out who came by another one."""
    file = "/etc/ssh/sshd_config.d/nothing.conf"
    forced = 'env -u SSH_CONNECTION sh -c "$SSH_ORIGINAL_COMMAND"'
    second.shell(f"echo 'ForceCommand {forced}' >{file}; systemctl restart ssh")
    try:
        said = second.setup("--dry-run")
    finally:
        second.shell(f"rm {file}; systemctl restart ssh")
    assert "does not say which port ssh came by" in said
    assert "Firewall lets in" not in said


def test_a_power_cut_loses_no_task(server: Server, cut: Cut, report: support.Report) -> None:
    done: set[str] = set()

    def all_done() -> bool:
        done.update(task for task in cut.tasks if task not in done and server.task_is_done(task))
        return len(done) == len(cut.tasks)

    # What ran at the moment of the cut comes back when nobody has held it for 40 s.
    wait_until(all_done, "all 200 tasks are done", seconds=120)
    took = time.monotonic() - cut.ended
    report.add(server.manager, f"power cut with 200 tasks: all done within {took:.0f} s")


@pytest.fixture(scope="module")
def frozen(server: Server) -> str:
    """Halt the workers' main process, which is noticed in a minute; return its pid."""
    pid = server.main_pid("worker")
    server.shell(f"kill -STOP {pid}")
    return pid


@pytest.mark.usefixtures("frozen")
def test_a_second_application_stands_beside(server: Server, second: Server) -> None:
    """Set up through sudo: her port stays open, and nobody else reads what she sends."""
    second.shell(
        "touch /tmp/read; chmod 666 /tmp/read; systemd-run -q --unit thief --uid nobody sh -c "
        "'while sleep 0.01; do cat /tmp/pyinfra-* /home/ada/.*/pyinfra-* >>/tmp/read; done'"
    )
    second.setup()
    second.set_environment("PUBLIC_DEMO", "yes")
    second.shell("systemctl stop thief")
    assert second.shell("cat /tmp/read") == ""
    opened = second.shell("ufw status")
    assert "Status: active" in opened and "2222/tcp" in opened
    second.release("--no-smoke")
    assert second.works()
    assert "ready" in second.deploy("status")
    # Without nginx and the Redis of both, which are about a tenth of the 150 MiB that all may take
    processes = [one for one in second.memory() if one.name.startswith(("web:", "worker:"))]
    assert sum(process.pss for process in processes) <= 135, processes
    assert server.redis_port() != second.redis_port()


def test_a_worker_that_takes_no_tasks_is_replaced(server: Server, frozen: str) -> None:
    # systemd and supervisord give it a minute.
    wait_until(
        lambda: server.main_pid("worker") not in ("", "0", frozen), "it restarts", seconds=90
    )
    wait_until(lambda: server.works(), "tasks are done again")


def test_the_first_application_is_as_it_was(server: Server) -> None:
    server.shell("ufw allow 22/tcp")
    assert "everything works" in server.smoke()
    server.setup()
    assert nothing_changed(server.output), server.output
