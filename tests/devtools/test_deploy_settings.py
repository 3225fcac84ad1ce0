"""Settings of the server: a value that cannot be used is refused before anything is done."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pre_gen_project
import pytest
from devtools.deploy.settings import is_address, read

SETTINGS = """\
domain = "birds.example.com"
tls = "certbot"
email = "you@example.com"
process_manager = "systemd"
keep_releases = 5
swap = "1G"
"""

#: Run by root or read by nginx, if they came so far.
BAD = {
    "domain": ["birds", "a.example.com;reboot", "$(reboot).example.com", "a.example.com\n",
               "-d.example.com", "A.example.com", "a b.example.com", "a..example.com",
               "https://a.example.com", "a.example.com:80", "x" * 64 + ".example.com", "a.7"],
    "email": ["you", "x&reboot&@example.com", "`reboot`@example.com", "-x@example.com",
              "a..b@example.com", "you@example.com\n", "you@exam ple.com", "a'b@example.com"],
    "tls": ["yes", "none; reboot"],
    "process_manager": ["both", "../nginx"],
    "keep_releases": ["0", "five", "5;reboot", "-1"],
    "swap": ["1", "lots", "1G;reboot", "1T"],
    "acme_server": ["http://acme.example.com", "https://acme.example.com/d;reboot", "acme",
                    "https://acme.example.com/$(reboot)"],
}  # fmt: skip

GOOD = {
    "domain": ["birds.example.com", "a.io", "203.0.113.7", "xn--vgel-5qa.example.com"],
    "email": ["ada+birds@mail.example.co.uk", "Ada.Lovelace@Example.com", "a@a.io"],
    "tls": ["certbot", "files", "none"],
    "process_manager": ["systemd", "supervisor"],
    "keep_releases": ["1", "999"],
    "swap": ["512M", "2G"],
    "acme_server": ["https://acme.example.com/directory", "https://localhost:14000/dir"],
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "deploy" / "vps").mkdir(parents=True)
    (tmp_path / "deploy" / "vps" / "settings.toml").write_text(SETTINGS)
    return tmp_path


def pairs(values: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, of_name in values.items() for value in of_name]


@pytest.mark.parametrize(("name", "value"), pairs(BAD))
def test_a_value_that_a_shell_or_nginx_would_read_is_refused(
    project: Path, name: str, value: str
) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is \"(?s:.*)\"\. It must be .*\.$"):
        read(project, {name: value})


@pytest.mark.parametrize(("name", "value"), pairs(GOOD))
def test_a_plain_value_is_taken_before_that_of_the_file(
    project: Path, name: str, value: str
) -> None:
    assert read(project, {name: value, "unset": None})[name] == value


def test_the_file_is_checked_as_the_options_are(project: Path) -> None:
    file = project / "deploy" / "vps" / "settings.toml"
    file.write_text(SETTINGS.replace("you@", "x&reboot&@"))
    with pytest.raises(ValueError, match="plain e-mail address"):
        read(project, {})


@pytest.mark.parametrize(
    ("name", "value"), [pair for pair in pairs(BAD) + pairs(GOOD) if pair[0] in ("domain", "email")]
)
def test_generation_and_set_up_take_the_same(project: Path, name: str, value: str) -> None:
    if is_address(value):
        return  # has no place in metadata; to set a server up without a name it is good
    taken = {"generation": False, "set-up": False}
    with contextlib.suppress(pre_gen_project.Refused):
        check = pre_gen_project.check_domain if name == "domain" else pre_gen_project.check_email
        check(value)
        taken["generation"] = True
    with contextlib.suppress(ValueError):
        read(project, {name: value})
        taken["set-up"] = True
    assert taken["generation"] == taken["set-up"]
