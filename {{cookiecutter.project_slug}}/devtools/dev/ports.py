"""Whether a port is free, said so that people know what to do."""

import errno
import socket


class PortError(RuntimeError):
    """The web server cannot listen there; the text says why and what to do."""


def check_port(host: str, port: int) -> None:
    """Check that a server can listen on `port` of `host`.

    Raises:
        PortError: it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            other = port + 1 if port < 65535 else 8000
            raise PortError(
                f"Port {port} is in use by another program. Stop it, or choose another: "
                f"uv run flask dev --port {other}"
            ) from None
        if error.errno == errno.EACCES:
            raise PortError(
                f"Port {port} needs the rights of an administrator. Choose one above 1023: "
                "uv run flask dev --port 8000"
            ) from None
        raise PortError(
            f"{host} is not an address of this machine ({error.strerror}). "
            "Choose another: uv run flask dev --host 127.0.0.1"
        ) from None
