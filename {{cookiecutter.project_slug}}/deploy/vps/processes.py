"""The web process and the workers, under systemd or under supervisord. A release starts them."""

from pyinfra.api.operation import OperationMeta
from pyinfra.operations import server, systemd

from deploy.vps.common import (
    NAME,
    UNITS,
    exists,
    file,
    folder,
    no_file,
    running_release,
    start_again,
    supervised,
    text_of,
)

_SYSTEMD = (f"{NAME}.target", f"{NAME}-web.socket", f"{NAME}-web.service", f"{NAME}-worker.service")
#: Takes tasks while a release restarts the other: see activate.
_SPARE = f"{NAME}-worker-spare.service"
_PROGRAMS = f"/etc/supervisor/conf.d/{NAME}.conf"
_RUN_FOLDER = f"/etc/tmpfiles.d/{NAME}.conf"


def install() -> None:
    """Install the files of the process manager that was chosen, and take away the other's."""
    other_manager = f"{UNITS}/{NAME}-web.service" if supervised else _PROGRAMS
    changes_manager = exists(other_manager)
    if supervised:
        changes = [*_leave_systemd(), *_enter_supervisor()]
    else:
        changes = [*_leave_supervisor(), *_enter_systemd()]
    systemd.daemon_reload(
        name="systemd reads its units", _if=lambda: any(change.did_change() for change in changes)
    )
    release = running_release()
    if changes_manager and release:
        server.shell(name="The release starts again", commands=[start_again(release)])


def _enter_systemd() -> list[OperationMeta]:
    texts = {unit: text_of(f"systemd/{unit}") for unit in _SYSTEMD}
    worker, _, _ = texts[f"{NAME}-worker.service"].partition("[Install]")
    started = "Environment=PYTHONUNBUFFERED=1"
    texts[_SPARE] = worker.replace(started, f"{started} CELERY_WORKER_HOST=%H-spare")
    return [file(f"{UNITS}/{unit}", text) for unit, text in texts.items()]


def _leave_systemd() -> list[OperationMeta]:
    there = [unit for unit in (*reversed(_SYSTEMD), _SPARE) if exists(f"{UNITS}/{unit}")]
    if there:
        server.shell(
            name="systemd stops the application",
            commands=[f"systemctl disable --now {' '.join(there)}"],
        )
    return [no_file(f"{UNITS}/{unit}") for unit in there]


def _enter_supervisor() -> list[OperationMeta]:
    systemd.service(name="supervisord runs", service="supervisor", running=True, enabled=True)
    folder(f"/var/log/{NAME}", "750", NAME, NAME)
    run_folder = file(_RUN_FOLDER, f"d /run/{NAME} 0750 {NAME} www-data\n")
    server.shell(
        name=f"Folder /run/{NAME}",
        commands=[f"systemd-tmpfiles --create {_RUN_FOLDER}"],
        _if=run_folder.did_change,
    )
    file(_PROGRAMS, text_of(f"supervisor/{NAME}.conf"))
    # The packaged unit waits 50 s after a crash, and leaves the old programs beside the new ones.
    drop_in = f"{UNITS}/supervisor.service.d"
    folder(drop_in)
    lines = ("[Service]", "Restart=always", "RestartSec=1", "KillMode=mixed", "TimeoutStopSec=60")
    return [file(f"{drop_in}/restart.conf", "\n".join(lines) + "\n")]


def _leave_supervisor() -> list[OperationMeta]:
    if exists(_PROGRAMS):
        no_file(_PROGRAMS)
        no_file(_RUN_FOLDER)
        server.shell(name="supervisord forgets the programs", commands=["supervisorctl update"])
        server.shell(name=f"No folder /run/{NAME}", commands=[f"rm -rf /run/{NAME}"])
    return []
