"""nginx with the project's files: what it counts, what it shows to strangers, what it hands on.

The real nginx of Debian 13, with the site of a server. In the application's place another server of
the same nginx answers what it was asked. The client lives in nginx' own network, where it has
addresses of several networks.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import support
from machine import NGINX, needs
from machine import SERVER as CLIENT
from targets.authority import Authority

pytestmark = needs("nginx")

SLUG, DOMAIN = "birds", "birds.example.org"

#: Answers for the application, with the headers that it got
APPLICATION = f"""
server {{
    listen unix:/run/{SLUG}/web.sock;
    default_type text/plain;
    location /hangs-up {{
        return 444;
    }}
    location / {{
        return 200 "$http_host|$http_x_forwarded_host|$http_x_forwarded_for";
    }}
}}
"""

#: What the client runs: each function below is one kind of visitor.
VISITOR = f"""
import json, socket, ssl, sys

def connect(source, name="{DOMAIN}"):
    context = ssl.create_default_context(cafile="/tls/ca.pem")
    here = "::1" if ":" in source else "127.0.0.1"
    plain = socket.create_connection((here, 443), timeout=10, source_address=(source, 0))
    return context.wrap_socket(plain, server_hostname=name)

def request(method, path, host="{DOMAIN}", more=""):
    return f"{{method}} {{path}} HTTP/1.1\\r\\nHost: {{host}}\\r\\n{{more}}\\r\\n".encode()

def answer(connection):
    file = connection.makefile("rb")
    status = int(file.readline().split()[1])
    length = 0
    while (line := file.readline().strip().lower()):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return status, file.read(length).decode()

def ask(source, *sent):
    with connect(source) as connection:
        connection.sendall(request(*sent))
        return answer(connection)

def storm(sources, method, path, times):
    seen = []
    for source in sources:
        with connect(source) as connection:
            for _ in range(times):
                connection.sendall(request(method, path))
                seen.append(answer(connection)[0])
    return seen

def slow(source, count, other):
    seen, open_ones = [], []
    for _ in range(count):
        connection = connect(source)
        connection.sendall(request("PUT", "/", more="Content-Length: 9\\r\\n") + b"half")
        connection.settimeout(0.02)
        try:
            seen.append(answer(connection)[0])
        except TimeoutError:
            seen.append(0)  # it waits for the other half
            open_ones.append(connection)
    return seen, ask(other, "GET", "/")[0]

def handshake(name):
    context = ssl._create_unverified_context()
    try:
        plain = socket.create_connection(("127.0.0.1", 443), timeout=10)
        with context.wrap_socket(plain, server_hostname=name) as connection:
            return len(connection.getpeercert(True))
    except ssl.SSLError as error:
        return error.reason

print(json.dumps(eval(sys.argv[1])))
"""


@dataclass
class Site:
    """A running nginx, and the container of its visitors."""

    client: str

    def visit(self, call: str) -> Any:
        """Return what one of the visitors' functions returns."""
        command = ["docker", "exec", self.client, "python3", "-c", VISITOR, call]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def site(
    render: Callable[[support.Answers], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Start nginx, and give its visitors two networks of IPv6."""
    project = render({"project_slug": SLUG, "domain_name": DOMAIN})
    folder = tmp_path_factory.mktemp("nginx")
    Authority(folder).issue(DOMAIN)
    (folder / "conf.d").mkdir()
    site = (project / "deploy" / "nginx" / "host-https.conf").read_text()
    (folder / "conf.d" / "site.conf").write_text(site)
    (folder / "conf.d" / "application.conf").write_text(APPLICATION)
    volumes = {
        folder / "conf.d": "/etc/nginx/conf.d",
        folder: f"/etc/{SLUG}/tls",
        project / "deploy" / "nginx": f"/etc/{SLUG}/nginx",
        project / SLUG: f"/opt/{SLUG}/current/{SLUG}",
    }
    name = f"test-nginx-{secrets.token_hex(3)}"
    client = f"{name}-client"
    try:
        support.succeed(
            "docker", "run", "--detach", "--name", name, "--tmpfs", f"/run/{SLUG}:mode=755",
            "--sysctl", "net.ipv6.conf.all.disable_ipv6=0",
            *(f"--volume={here}:{there}:ro" for here, there in volumes.items()), NGINX,
            cwd=folder,
        )  # fmt: skip
        support.succeed(
            "docker", "run", "--detach", "--name", client, "--network", f"container:{name}",
            "--cap-add", "NET_ADMIN", f"--volume={folder}:/tls:ro",
            "--entrypoint", "sleep", CLIENT, "infinity",
            cwd=folder,
        )  # fmt: skip
        support.succeed(
            "docker", "exec", client, "sh", "-ec",
            "for n in $(seq 1 70); do ip -6 addr add 2001:db8:1:1::$n dev lo nodad;"
            " ip -6 addr add 2001:db8:1:2::$n dev lo nodad; done;"
            "until curl -s -o /dev/null http://127.0.0.1/; [ $? != 7 ]; do sleep 0.1; done",
            cwd=folder,
        )  # fmt: skip
        yield Site(client)
    finally:
        subprocess.run(["docker", "rm", "-f", "-v", client, name], check=False, capture_output=True)


def network(number: int) -> list[str]:
    return [f"2001:db8:1:{number}::{n}" for n in range(1, 71)]


def test_the_host_is_the_one_that_nginx_found(site: Site) -> None:
    """The address of the first line wins over the header Host; a port stays."""
    status, said = site.visit(f"ask('127.0.0.1', 'GET', 'https://{DOMAIN}/', 'evil.example')")
    assert (status, said) == (200, f"{DOMAIN}|{DOMAIN}|127.0.0.1")
    status, said = site.visit(f"ask('127.0.0.1', 'GET', '/', '{DOMAIN}:8443')")
    assert (status, said) == (200, f"{DOMAIN}:8443|{DOMAIN}:8443|127.0.0.1")


@pytest.mark.parametrize("name", ["other.example.org", f"{SLUG}.invalid", "localhost", None])
def test_an_unknown_name_gets_no_certificate(site: Site, name: str | None) -> None:
    assert site.visit(f"handshake({name!r})") == "TLSV1_UNRECOGNIZED_NAME"
    assert site.visit(f"handshake({DOMAIN!r})") > 100


def test_an_application_that_hangs_up_is_a_503(site: Site) -> None:
    """As when it is being started again: come back soon."""
    status, said = site.visit("ask('127.0.0.8', 'GET', '/hangs-up')")
    assert (status, json.loads(said)["status"]) == (503, 503)


def test_all_addresses_of_a_network_are_one_client(site: Site) -> None:
    """Whoever has one address of IPv6 has 2 to the 64, and takes another one for each request."""
    seen = Counter(site.visit(f"storm({network(1)}, 'POST', '/', 1)"))
    assert seen[200] < 65 and seen[429] > 0, seen
    assert site.visit(f"ask({network(2)[0]!r}, 'POST', '/')")[0] == 200
    assert site.visit("ask('127.0.0.9', 'POST', '/')")[0] == 200


def test_an_office_behind_one_address_opens_the_page_at_once(site: Site) -> None:
    """Fifty people, each with the page, its style and its script."""
    for path in ("/", "/static/style.css", "/static/live.js"):
        assert set(site.visit(f"storm(['127.0.0.3'], 'GET', {path!r}, 50)")) == {200}


def test_a_client_that_asks_without_end_is_slowed_and_its_neighbour_is_not(site: Site) -> None:
    seen = Counter(site.visit("storm(['127.0.0.4'], 'GET', '/static/style.css', 900)"))
    assert seen[200] >= 200 and seen[429] > 0, seen
    assert site.visit("ask('127.0.0.5', 'GET', '/')")[0] == 200


def test_half_sent_requests_of_one_client_leave_room_for_others(site: Site) -> None:
    seen, neighbour = site.visit("slow('127.0.0.6', 130, '127.0.0.7')")
    assert Counter(seen) == {0: 100, 429: 30}
    assert neighbour == 200
