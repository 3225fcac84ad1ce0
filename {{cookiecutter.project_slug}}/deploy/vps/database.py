{% if cookiecutter.database == "postgresql" %}
"""PostgreSQL from Debian's packages, with a role and a database of the application's own."""

from pyinfra.operations import server, systemd

from deploy.vps.common import NAME, UNITS, exists, file, folder, in_container, output, text_of

#: The application comes by the socket, and PostgreSQL knows it by its user: there is no password.
_URL = f"postgresql:///{NAME}?host=/run/postgresql"
_SETTINGS = "/etc/postgresql-common/small-server.conf"
_AS_POSTGRES = "cd / && runuser -u postgres --"


def make() -> None:
    """Have PostgreSQL run with its settings; make role and database, once, and say where it is."""
    # One that somebody else has set up keeps its settings.
    if exists(_SETTINGS) or not output("pg_lsclusters -h"):
        _tune()
    # It may make databases, so that a backup can be restored beside the one in use.
    for what, names, command in (
        ("Role", "SELECT rolname FROM pg_roles", "createuser --createdb"),
        ("Database", "SELECT datname FROM pg_database", f"createdb -O {NAME} -T template0 -E UTF8"),
    ):
        found = output(f'{_AS_POSTGRES} psql -Atc "{names}"')
        if NAME not in found.split():
            server.shell(name=f"{what} {NAME}", commands=[f"{_AS_POSTGRES} {command} {NAME}"])
    if not output(f"grep ^DATABASE_URL= /etc/{NAME}/env"):
        server.shell(
            name="The setting DATABASE_URL",
            commands=[f"echo 'DATABASE_URL={_URL}' >>/etc/{NAME}/env"],
        )


def _tune() -> None:
    drop_in = f"{UNITS}/postgresql@.service.d"
    folder(drop_in)
    # The packaged unit stays down after a crash.
    restart = file(f"{drop_in}/restart.conf", "[Service]\nRestart=on-failure\nRestartSec=1\n")
    systemd.daemon_reload(name="systemd reads PostgreSQL's unit", _if=restart.did_change)
    # A container sees the memory of its machine: it is taken for a small one.
    memory = int(output("awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo"))
    memory = 512 if in_container() else min(memory, 4096)
    text = text_of("database/postgresql.conf")
    for share in (4, 16):
        text = text.replace(f"MEMORY_{share}", str(memory // share))
    settings = file(_SETTINGS, text)
    server.shell(
        name="PostgreSQL takes its settings",
        commands=[
            f"for it in /etc/postgresql/*/main/conf.d; do ln -sf {_SETTINGS} $it/; done",
            "systemctl restart postgresql",
        ],
        _if=settings.did_change,
    )
    systemd.service(name="PostgreSQL runs", service="postgresql", running=True, enabled=True)
{% else %}
"""SQLite: a file beside the application, which the first release makes."""

from pyinfra.operations import server

from deploy.vps.common import NAME, output

_URL = f"sqlite:////var/lib/{NAME}/{NAME}.sqlite"


def make() -> None:
    """Tell the application where its database is, once."""
    if not output(f"grep ^DATABASE_URL= /etc/{NAME}/env"):
        server.shell(
            name="The setting DATABASE_URL",
            commands=[f"echo 'DATABASE_URL={_URL}' >>/etc/{NAME}/env"],
        )
{% endif %}
