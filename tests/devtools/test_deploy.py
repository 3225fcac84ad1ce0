"""``flask deploy``: what can be said without a server."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from devtools.deploy import command, options
from devtools.deploy.git import archive, name_release
from devtools.deploy.server import Server
from machine import needs

SETTINGS = """
domain = "birds.example.com"
tls = "none"
email = "you@example.com"
process_manager = "systemd"
keep_releases = 5
swap = "1G"
"""


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text("one")
    git(tmp_path, "init")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "-m", "Begin")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "user", "name", "port"),
    [
        ("203.0.113.7", "root", "203.0.113.7", 22),
        ("root@example.com", "root", "example.com", 22),
        ("me@my-server:2222", "me", "my-server", 2222),
    ],
)
def test_a_host_is_read(text: str, user: str, name: str, port: int, tmp_path: Path) -> None:
    server = Server.parse(text, tmp_path)
    assert (server.user, server.name, server.port) == (user, name, port)


@pytest.mark.parametrize("text", ["", "two words", "-oProxyCommand=x", "a@b@c", "host:ssh", "a;b"])
def test_what_is_no_host_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter):
        Server.parse(text, tmp_path)


@needs("ssh")
def test_another_user_than_root_uses_sudo(tmp_path: Path) -> None:
    assert Server.parse("me@host", tmp_path).ssh("a 'b'")[-1] == """sudo -- sh -c 'a '"'"'b'"'"''"""
    assert Server.parse("host", tmp_path).ssh("a 'b'")[-1] == "a 'b'"


def test_a_release_is_named_after_its_commit(repository: Path) -> None:
    name = name_release(repository, allow_dirty=False)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True
    ).stdout
    assert commit.startswith(name.split("-")[2])


def test_files_that_are_not_committed_are_refused(repository: Path) -> None:
    (repository / "new.py").write_text("two")
    with pytest.raises(click.ClickException, match=r"new\.py"):
        name_release(repository, allow_dirty=False)
    assert name_release(repository, allow_dirty=True)


def test_without_a_commit_the_command_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="git commit"):
        name_release(tmp_path, allow_dirty=False)


def test_only_committed_files_are_archived(repository: Path, tmp_path: Path) -> None:
    (repository / "new.py").write_text("two")
    file = tmp_path / "release.tar.gz"
    with file.open("wb") as stream:
        archive(repository, stream)
    listed = subprocess.run(
        ["tar", "-tzf", file], check=True, capture_output=True, text=True
    ).stdout.split()
    assert listed == ["app.py"]


def test_the_tools_stay_at_home(repository: Path, tmp_path: Path) -> None:
    """Nothing of devtools is in a release, so no message and no intruder finds it on a server."""
    template = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}"
    shutil.copy(template / ".gitattributes", repository)
    for name in ("devtools/deploy/command.py", "flask_background/app.py", ".flaskenv"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).touch()
    git(repository, "add", "--all")
    git(repository, "commit", "-m", "Tools")
    file = tmp_path / "release.tar.gz"
    with file.open("wb") as stream:
        archive(repository, stream)
    with tarfile.open(file) as release:
        names = release.getnames()
    assert "flask_background/app.py" in names
    assert not [name for name in names if name.startswith(("devtools", ".flaskenv"))]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--tls", "files"], "--certificate FILE and --key FILE"),
        (["--tls", "certbot", "--domain", "example.com"], "settings.toml"),
    ],
)
def test_a_setup_that_cannot_work_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], reason: str
) -> None:
    (tmp_path / "deploy" / "vps").mkdir(parents=True)
    (tmp_path / "deploy" / "vps" / "settings.toml").write_text(SETTINGS)
    monkeypatch.setattr(options, "PROJECT", tmp_path)
    result = CliRunner().invoke(command.deploy, ["setup", "host", *given])
    assert result.exit_code == 2
    assert reason in result.output
