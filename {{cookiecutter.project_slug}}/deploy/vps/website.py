"""nginx in front of the application, and its certificate."""

import re
import shlex
from pathlib import Path

from devtools.deploy.settings import is_address
from pyinfra import host
from pyinfra.api.operation import OperationMeta
from pyinfra.facts.server import LinuxDistribution
from pyinfra.operations import files, server, systemd

from deploy.vps.common import (
    NAME,
    UNITS,
    file,
    folder,
    output,
    running_release,
    settings,
    start_again,
    text_of,
)

_SITE = f"/etc/nginx/sites-available/{NAME}.conf"
_TLS = f"/etc/{NAME}/tls"
_ANSWERS = f"/var/lib/letsencrypt/{NAME}"
_LIVE = f"/etc/letsencrypt/live/{NAME}"


def serve() -> None:
    """Serve the application over HTTP, or over HTTPS if there is a certificate already."""
    for path in (f"/etc/{NAME}/nginx", "/var/lib/letsencrypt", _ANSWERS):
        folder(path)
    folder(_TLS, "700")
    drop_in = f"{UNITS}/nginx.service.d"
    folder(drop_in)
    # The packaged unit stays down after a crash.
    restart = file(f"{drop_in}/restart.conf", "[Service]\nRestart=on-failure\nRestartSec=1\n")
    systemd.daemon_reload(name="systemd reads nginx' unit", _if=restart.did_change)
    pieces = [
        file(f"/etc/{NAME}/nginx/{piece}", text_of(f"nginx/{piece}"))
        for piece in ("acme.conf", "application.conf", "headers.conf", "http.conf", "tls.conf")
    ]
    if settings["tls"] == "files":
        pieces += [
            files.put(
                name=f"File {_TLS}/{name}",
                src=str(Path(settings[source]).expanduser()),
                dest=f"{_TLS}/{name}",
                mode="600",
                user="root",
                group="root",
            )
            for name, source in (("fullchain.pem", "certificate"), ("privkey.pem", "key"))
        ]
    ready = settings["tls"] == "files" or (settings["tls"] == "certbot" and _certbot_is_done())
    _put_site("https" if ready else "http", pieces)


def get_certificate() -> None:
    """Have certbot get a certificate and renew it; until then the site speaks HTTP."""
    if settings["tls"] != "certbot" or _certbot_is_done():
        return
    command = ["certbot", "certonly", "--quiet", "--non-interactive", "--agree-tos"]
    command += ["--email", settings["email"], "--domain", settings["domain"], "--cert-name", NAME]
    command += ["--webroot", "--webroot-path", _ANSWERS]
    command += ["--server", settings["acme_server"]] if "acme_server" in settings else []
    command += ["--deploy-hook", "systemctl reload nginx"]
    # Of all that it says when it fails, the lines with the reason
    log = f"/run/{NAME}-certbot.log"
    reason = f"grep -E 'Detail:|[Ee]rror' {log} | tail -n 3"
    server.shell(
        name=f"Certificate for {settings['domain']}",
        commands=[
            f"{shlex.join(command)} >{log} 2>&1 || ({reason}; exit 1)",
            *(f"ln -sfn {_LIVE}/{name} {_TLS}/{name}" for name in ("fullchain.pem", "privkey.pem")),
        ],
    )
    _put_site("https", [])


def _certbot_is_done() -> bool:
    """Tell whether there is a certificate of certbot's for the domain."""
    domain = shlex.quote(settings["domain"])
    check = f"openssl x509 -noout -checkhost {domain} -in {_LIVE}/fullchain.pem"
    return "does match" in output(check)


def _site(scheme: str) -> str:
    """Return nginx' file for the site."""
    text = text_of(f"nginx/host-{scheme}.conf")
    if is_address(settings["domain"]):
        # Clients name no address in their handshake: who names nothing must get the certificate.
        lines = f"ssl_certificate {_TLS}/fullchain.pem;", f"ssl_certificate_key {_TLS}/privkey.pem;"
        text = text.replace("ssl_reject_handshake on;", "\n    ".join(lines))
    system = host.get_fact(LinuxDistribution)
    if (system["name"], system["major"]) == ("Ubuntu", 24):
        # Its nginx 1.24 does not know the directive yet.
        text = text.replace("    http2 on;\n", "").replace("443 ssl;", "443 ssl http2;")
    return text


def _put_site(scheme: str, pieces: list[OperationMeta]) -> None:
    site = _site(scheme)
    file(f"/etc/{NAME}/url", f"{scheme}://{settings['domain']}\n")
    hosts = file(f"/etc/{NAME}/hosts", f"TRUSTED_HOSTS={','.join(_names(site))}\n")
    changes = [
        *pieces,
        file(_SITE, site),
        files.link(
            name="The site is enabled", path=f"/etc/nginx/sites-enabled/{NAME}.conf", target=_SITE
        ),
    ]
    server.shell(
        name="nginx reads its settings",
        commands=["nginx -t -q", "systemctl reload-or-restart nginx"],
        _if=lambda: any(change.did_change() for change in changes),
    )
    systemd.service(name="nginx runs", service="nginx", running=True, enabled=True)
    if release := running_release():
        server.shell(
            name="The application answers to its names",
            commands=[start_again(release)],
            _if=hosts.did_change,
        )


def _names(site: str) -> list[str]:
    """Return the names under which nginx' file hands requests on."""
    names = " ".join(re.findall(r"^ *server_name (.+);", site, re.MULTILINE)).split()
    return sorted({name for name in names if not name.endswith(".invalid")})
