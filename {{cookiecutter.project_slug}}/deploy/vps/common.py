"""What the steps of the set-up share: names, settings, and files from this folder."""

import io
import shlex
from pathlib import Path
from typing import Any

from devtools.deploy.settings import read
from pyinfra import config, host, state
from pyinfra.api.exceptions import OperationError
from pyinfra.api.operation import OperationMeta
from pyinfra.facts.files import File
from pyinfra.facts.server import Command
from pyinfra.operations import files

from .progress import Progress

NAME = "{{ cookiecutter.project_slug }}"
UNITS = "/etc/systemd/system"
_PROJECT = Path(__file__).resolve().parents[2]
#: What `flask deploy setup` hands over as data
_OPTIONS = ("domain", "tls", "process_manager", "certificate", "key", "acme_server")


def _settings() -> dict[str, Any]:
    try:
        return read(_PROJECT, {name: host.data.get(name) for name in _OPTIONS})
    except ValueError as error:
        raise OperationError(str(error)) from None


state.add_callback_handler(Progress())
settings = _settings()
supervised = settings["process_manager"] == "supervisor"


def output(command: str) -> str:
    """Return what a command prints on the server; nothing if it fails."""
    return host.get_fact(Command, f"{command} 2>/dev/null || true") or ""


def output_of_login(command: str) -> str:
    """Return what a command prints if it runs without sudo, as the user who came by ssh."""
    return host.get_fact(Command, f"{command} 2>/dev/null || true", _sudo=False) or ""


def receive_files_in_private() -> None:
    """Under sudo, let files arrive in a folder of the login's: in /tmp, everybody could read them.

    pyinfra uploads a file as the login, with its umask, before root copies it to its place.
    """
    if config.SUDO:
        path = f"{output_of_login('cd && pwd').strip()}/.flask-deploy"
        files.directory(name=f"Folder {path}", path=path, mode="700", _sudo=False)
        config.TEMP_DIR = path


def exists(path: str) -> bool:
    """Tell whether there is a file of that name on the server."""
    return bool(host.get_fact(File, path))


def running_release() -> str:
    """Return the name of the release that was switched to; nothing if there is none yet."""
    return output(f"basename $(readlink /opt/{NAME}/current)").strip()


def start_again(release: str) -> str:
    """Return the command that starts a release again, without a request lost."""
    return f"/opt/{NAME}/current/deploy/vps/activate {shlex.quote(release)}"


def in_container() -> bool:
    """Tell whether the server is a container, whose kernel belongs to somebody else."""
    return output("systemd-detect-virt --container").strip() not in ("", "none")


def text_of(path: str) -> str:
    """Return the text of a file of the deploy folder, with the domain that the settings name."""
    text = (_PROJECT / "deploy" / path).read_text(encoding="utf-8")
    domain = "{{ cookiecutter.domain_name }}"
    return text.replace(f"server_name {domain};", f"server_name {settings['domain']};")


def folder(path: str, mode: str = "755", user: str = "root", group: str = "root") -> OperationMeta:
    """Have a folder on the server."""
    return files.directory(name=f"Folder {path}", path=path, mode=mode, user=user, group=group)


def file(path: str, text: str, mode: str = "644", group: str = "root") -> OperationMeta:
    """Have a file with this text on the server; secrets do not show in the output."""
    return files.put(
        name=f"File {path}",
        src=io.StringIO(text),
        dest=path,
        mode=mode,
        user="root",
        group=group,
        create_remote_dir=False,
    )


def no_file(path: str) -> OperationMeta:
    """Have no file of that name on the server."""
    return files.file(name=f"No file {path}", path=path, present=False)
