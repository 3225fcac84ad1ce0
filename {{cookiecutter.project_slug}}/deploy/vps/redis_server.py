"""A Redis instance of the application's own, its password, and its backups."""

import re
import secrets

from pyinfra.operations import systemd

from deploy.vps.common import NAME, UNITS, exists, file, output, text_of

_ENVIRONMENT = """\
# Settings of the application on this server; .env.example in the project explains them.
# After a change, restart the application: see docs/deploy-to-a-server.md.
FLASK_APP={name}
FLASK_CONFIG=production
SECRET_KEY={secret_key}
API_TOKEN={api_token}
TRUSTED_PROXIES=1
REDIS_URL=redis://:{password}@127.0.0.1:{port}/0
# The same for redis-cli
REDIS_PORT={port}
REDISCLI_AUTH={password}
"""


def make_secrets() -> None:
    """Make the passwords and the file of settings, once: what is there is never changed."""
    if exists(f"/etc/{NAME}/env"):
        return
    password = secrets.token_urlsafe(32)
    # The first free port; another application may own one without listening at the moment.
    taken = output("ss -Htln; grep -hs '^port' /etc/*/redis.secret")
    port = next(port for port in range(6380, 6480) if not re.search(rf"\b{port}\b", taken))
    file(f"/etc/{NAME}/redis.secret", f"port {port}\nrequirepass {password}\n", "640", NAME)
    text = _ENVIRONMENT.format(
        name=NAME,
        port=port,
        password=password,
        secret_key=secrets.token_urlsafe(48),
        api_token=secrets.token_urlsafe(32),
    )
    file(f"/etc/{NAME}/env", text, "640", NAME)


def run() -> None:
    """Run the instance; restart it if its settings changed."""
    unit = f"{NAME}-redis.service"
    changes = [
        file(f"/etc/{NAME}/redis.conf", text_of("redis/redis.conf"), "640", NAME),
        file(f"{UNITS}/{unit}", text_of(f"redis/{unit}")),
    ]
    changed = lambda: any(change.did_change() for change in changes)  # noqa: E731
    systemd.daemon_reload(name=f"systemd reads {unit}", _if=changed)
    systemd.service(name=f"{unit} restarts", service=unit, restarted=True, _if=changed)
    systemd.service(name=f"{unit} runs", service=unit, running=True, enabled=True)


def back_up() -> None:
    """Back it up every night, and try every week whether the newest backup can be restored."""
    timers = [f"{NAME}-backup.timer", f"{NAME}-drill.timer"]
    units = [f"{NAME}-backup.service", f"{NAME}-drill.service", *timers]
    changes = [file(f"{UNITS}/{unit}", text_of(f"redis/{unit}")) for unit in units]
    systemd.daemon_reload(
        name="systemd reads the backup's units",
        _if=lambda: any(change.did_change() for change in changes),
    )
    for timer in timers:
        systemd.service(name=f"{timer} runs", service=timer, running=True, enabled=True)
