"""The machine itself: packages, user, folders, uv, logs, swap, firewall."""

import shlex

from pyinfra import host, logger
from pyinfra.api.exceptions import OperationError
from pyinfra.facts.server import LinuxDistribution
from pyinfra.operations import apt, server, systemd

from deploy.vps.common import (
    NAME,
    exists,
    file,
    folder,
    in_container,
    output,
    output_of_login,
    settings,
    supervised,
)

#: Older ones lack a Python or a systemd that is new enough.
SYSTEMS = {"Debian": 13, "Ubuntu": 24}
PACKAGES = ["ca-certificates", "curl", "nginx", "openssl", "python3-venv", "redis-server", "ufw"]
UV = "0.13.8"
#: Says that what is called NAME on the server was made by `flask deploy setup`.
_OURS = f"/etc/{NAME}/made-by-flask-deploy"


def check_system() -> None:
    """Refuse a system that we do not know."""
    system = host.get_fact(LinuxDistribution)
    if int(system["major"] or 0) < SYSTEMS.get(system["name"] or "", 1000):
        raise OperationError(
            f"{host.name} runs {system['name']} {system['major']}. "
            "Take a server with Debian 13, Ubuntu 24.04 or a newer one of them."
        )


def refuse_what_is_not_ours() -> None:
    """Stop if the server has a user, a folder or a unit of that name which we did not make."""
    # The file of settings tells it for a server that was set up before there was that mark.
    if exists(_OURS) or output(f"grep -x FLASK_APP={NAME} /etc/{NAME}/env"):
        return
    folders = (f"{folder}/{NAME}" for folder in ("/etc", "/opt", "/run", "/var/lib", "/var/log"))
    places = [*folders, f"/var/lib/{NAME}-redis", f"/var/lib/{NAME}-backups"]
    places += [f"/etc/nginx/sites-available/{NAME}.conf", f"/etc/supervisor/conf.d/{NAME}.conf"]
    found = output(
        f"for it in {' '.join(places)}; do test -e $it && echo $it; done;"
        f"getent passwd {NAME} >/dev/null && echo the user {NAME};"
        f"getent group {NAME} >/dev/null && echo the group {NAME};"
        f"systemctl cat {NAME}.target >/dev/null && echo the unit {NAME}.target"
    ).splitlines()
    if found:
        raise OperationError(
            f"{host.name} has {', '.join(found)}, and `flask deploy setup` did not make that. "
            f"Nothing was changed. Give the project another name; or, if all of it belongs to this "
            f"application, say so on the server: mkdir -p /etc/{NAME} && touch {_OURS}"
        )


def install_packages() -> None:
    """Install Debian's packages, and have security updates install themselves."""
    had_redis = exists("/usr/bin/redis-server")
    packages = [*PACKAGES, "redis-tools", "unattended-upgrades"]
    packages += ["certbot"] if settings["tls"] == "certbot" else []
    packages += ["supervisor"] if supervised else []
{% if cookiecutter.database != "none" %}
    packages += ["{{ 'postgresql' if cookiecutter.database == 'postgresql' else 'sqlite3' }}"]
{% endif %}
    apt.packages(
        name="Debian packages", packages=packages, update=True, cache_time=86400, no_recommends=True
    )
    if not had_redis:
        # The packaged instance would only take memory: the application has one of its own.
        systemd.service(
            name="Packaged Redis is off", service="redis-server", running=False, enabled=False
        )
    file(
        "/etc/apt/apt.conf.d/20auto-upgrades",
        'APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\n',
    )


def make_user_and_folders() -> None:
    """Make the user that the processes run as, and the folders of the application."""
    if not exists(_OURS):
        # First of all, so that a set-up that breaks off can be run again.
        server.shell(
            name=f"Mark what is called {NAME} as ours",
            commands=[f"mkdir -p /etc/{NAME} && touch {_OURS}"],
        )
    server.group(name=f"Group {NAME}", group=NAME, system=True)
    server.user(  # noqa: S604
        name=f"User {NAME}",
        user=NAME,
        group=NAME,
        system=True,
        create_home=False,
        home=f"/var/lib/{NAME}",
        shell="/usr/sbin/nologin",
    )
    folder(f"/etc/{NAME}", "750", group=NAME)
    folder(f"/opt/{NAME}")
    folder(f"/opt/{NAME}/releases")
    folder(f"/var/lib/{NAME}", "750", NAME, NAME)


def install_uv() -> None:
    """Install uv, which makes the virtual environments of the releases."""
    tools = f"/opt/{NAME}/tools"
    if output(f"{tools}/bin/uv --version").split()[1:2] != [UV]:
        server.shell(
            name=f"uv {UV}",
            commands=[
                f"python3 -m venv {tools}",
                f"{tools}/bin/pip install --quiet --disable-pip-version-check uv=={UV}",
            ],
        )


def limit_journal() -> None:
    """Bound what the logs take of the disk."""
    path = "/etc/systemd/journald.conf.d"
    folder(path)
    limit = file(f"{path}/{NAME}.conf", "[Journal]\nSystemMaxUse=200M\n")
    systemd.service(
        name="Journal takes its limit",
        service="systemd-journald",
        restarted=True,
        _if=limit.did_change,
    )


def add_swap() -> None:
    """Give a server without swap some, so that a peak of memory is slow instead of deadly."""
    if in_container() or output("swapon --show=NAME --noheadings").strip():
        return
    size = settings["swap"]
    server.shell(
        name=f"Swap of {size}",
        commands=[
            f"umask 077 && fallocate -l {shlex.quote(size)} /swapfile",
            "mkswap /swapfile && swapon /swapfile",
            "grep -q '^/swapfile ' /etc/fstab || echo '/swapfile none swap sw 0 0' >>/etc/fstab",
        ],
    )
    # Redis saves from a fork, which the kernel shall not refuse for want of memory.
    file("/etc/sysctl.d/60-redis.conf", "vm.overcommit_memory = 1\nvm.swappiness = 10\n")
    server.shell(name="Kernel settings", commands=["sysctl -q -p /etc/sysctl.d/60-redis.conf"])


def close_firewall() -> None:
    """Let nothing in but ssh, on the port that we came by, and the web."""
    # sudo hides it, so the login is asked.
    words = output_of_login('echo "$SSH_CONNECTION"').split()
    if len(words) != 4:
        logger.warning(
            "The server does not say which port ssh came by. The firewall, which could shut it "
            "out, stays as it is. Once you know the port: ufw allow PORT/tcp && ufw enable"
        )
        return
    ports = [words[3], "80", "443"]
    status = output("ufw status")
    missing = [port for port in ports if f"\n{port}/tcp " not in status]
    if "Status: active" in status and not missing:
        return
    server.shell(
        name=f"Firewall lets in {', '.join(ports)}",
        commands=[*(f"ufw allow {port}/tcp" for port in ports), "ufw --force enable"],
    )
