"""The settings of the server: what deploy/vps/settings.toml and the options say, checked.

``flask deploy`` and the steps in deploy/vps read them here, so that nothing is begun with a value
that a shell, nginx or certbot would read as something else.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = rf"({_LABEL}\.)+(?![0-9]+$){_LABEL}"
_ADDRESS = r"[0-9]{1,3}(\.[0-9]{1,3}){3}"

#: What a value must look like as a whole, and how to say it.
_RULES = {
    "domain": (
        r"(?=.{1,253}$)" + rf"{_NAME}|{_ADDRESS}",
        "a host name in lower case without a scheme, a port or a path, such as birds.example.com",
    ),
    "email": (
        r"(?i:[a-z0-9_](?!.*\.\.)[a-z0-9._+-]{0,63}(?<!\.)@" + rf"{_NAME})",
        "a plain e-mail address, such as you@example.com",
    ),
    "tls": ("certbot|files|none", "certbot, files or none"),
    "process_manager": ("systemd|supervisor", "systemd or supervisor"),
    "keep_releases": ("[1-9][0-9]{0,2}", "a number from 1 to 999"),
    "swap": ("[1-9][0-9]{0,4}[MG]", "a size such as 512M or 1G"),
    "acme_server": (
        rf"https://({_NAME}|{_ADDRESS}|localhost)" + r"(:[0-9]{1,5})?(/[A-Za-z0-9._/-]*)?",
        "the https:// address of an authority's directory",
    ),
}


def read(project: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the project; what is given and not empty wins over the file.

    Raises ``ValueError`` with a sentence for the first one that cannot be used.
    """
    text = (project / "deploy" / "vps" / "settings.toml").read_text(encoding="utf-8")
    settings = tomllib.loads(text) | {name: value for name, value in given.items() if value}
    for name, (pattern, wanted) in _RULES.items():
        if name in settings and not re.fullmatch(pattern, str(settings[name])):
            raise ValueError(f'{name} is "{settings[name]}". It must be {wanted}.')
    return settings


def is_address(domain: str) -> bool:
    """Tell whether a domain that was checked is an address (IPv4) instead of a name."""
    try:
        IPv4Address(domain)
    except ValueError:
        return False
    return True
