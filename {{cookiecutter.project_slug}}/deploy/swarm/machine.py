"""A machine of several: Docker, the firewall, the kernel. `flask deploy swarm setup` applies it."""

import json
import shlex

from pyinfra import host
from pyinfra.operations import apt, server, systemd

from deploy.vps.common import NAME, UNITS, file, folder, no_file, output, settings, text_of
from deploy.vps.machine import add_swap, check_system, close_firewall, limit_journal

#: Among the machines alone: Docker's own ports, Redis and its sentinels, certbot
PORTS = ("2377,6379,7946,8402,26379/tcp", "7946/udp")
#: Twice a day, at a time of its own
TIMER = """\
[Timer]
OnCalendar=00/12:00
RandomizedDelaySec=6h
Persistent=true
[Install]
WantedBy=timers.target
"""

certbot = ["certbot"] if settings["tls"] == "certbot" else []
check_system()
apt.packages(
    name="Debian packages",
    packages=["ca-certificates", "docker-cli", "docker.io", "ufw", "unattended-upgrades", *certbot],
    update=True,
    cache_time=86400,
    no_recommends=True,
)
limit_journal()
add_swap()

# nginx is not root, and the one that starts shares its ports with the one that ends: connections
# that wait at the old one go to the new one.
kernel = {"net.ipv4.ip_unprivileged_port_start": 80, "net.ipv4.tcp_migrate_req": 1}
kept = file(
    "/etc/sysctl.d/60-swarm.conf", "".join(f"{name} = {value}\n" for name, value in kernel.items())
)
server.shell(
    name="Kernel settings",
    commands=["sysctl -q -p /etc/sysctl.d/60-swarm.conf"],
    _if=kept.did_change,
)

# No process in a container gains rights that it did not start with.
daemon = file("/etc/docker/daemon.json", json.dumps({"no-new-privileges": True}) + "\n")
systemd.service(name="Docker", service="docker", running=True, enabled=True)
systemd.service(
    name="Docker takes its settings", service="docker", restarted=True, _if=daemon.did_change
)

# The certificate, if certbot is to get it
unit, program = f"{NAME}-certificate", f"/usr/local/sbin/{NAME}-certificate"
if certbot:
    folder(f"/etc/{NAME}")
    authority = settings.get("acme_server", "https://acme-v02.api.letsencrypt.org/directory")
    given = {"DOMAIN": settings["domain"], "EMAIL": settings["email"], "ACME_SERVER": authority}
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in given.items()]
    file(f"/etc/{NAME}/certificate", "".join(lines))
    file(program, text_of("swarm/certificate.sh"), mode="755")
    file(f"{UNITS}/{unit}.service", f"[Service]\nType=oneshot\nExecStart={program}\n")
    timed = file(f"{UNITS}/{unit}.timer", TIMER)
    systemd.daemon_reload(name="systemd reads the timer", _if=timed.did_change)
    systemd.service(
        name="The certificate is renewed", service=f"{unit}.timer", running=True, enabled=True
    )
else:
    for path in (program, f"{UNITS}/{unit}.timer"):
        no_file(path)

close_firewall()
added = output("ufw show added")
rules = [
    f"allow from {machine} to any port {port} proto {kind}"
    for machine in host.data.get("machines").split(",")
    for port, kind in (it.split("/") for it in PORTS)
]
rules += ["allow in on docker0 to any port 6379,26379 proto tcp"]
# A machine that was taken away has no right any more.
ours = tuple(f" port {port.replace('/', ' proto ')}" for port in PORTS)
allowed = [line.removeprefix("ufw ") for line in added.splitlines() if line.endswith(ours)]
gone = [f"ufw delete {rule}" for rule in allowed if " from " in rule and rule not in rules]
if gone:
    server.shell(name="Firewall keeps out machines that are gone", commands=gone)
missing = [rule for rule in rules if f"ufw {rule}" not in added]
if missing:
    server.shell(name="Firewall lets the machines in", commands=[f"ufw {rule}" for rule in missing])
