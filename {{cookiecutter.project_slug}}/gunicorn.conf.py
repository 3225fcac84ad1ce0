"""Settings of the web server: https://docs.gunicorn.org/en/stable/settings.html

One process serves a small server well: requests are short, because long work goes to the workers.
WEB_CONCURRENCY=2 on a server with more than 1 GB.
"""

import contextlib
import gc
import os
import socket
import threading
import time

from gunicorn.workers.gthread import ThreadWorker

# Unix sockets or addresses from the environment; systemd's socket wins over them.
bind = os.environ.get("BIND", f"0.0.0.0:{os.environ.get('PORT', '8000')}").split(",")
{% if cookiecutter.use_heroku == "yes" %}
if os.environ.get("WEB_CONCURRENCY_SET_BY") == "heroku/python":
    # The buildpack guessed a number from the dyno's memory; Redis has connections for one process.
    del os.environ["WEB_CONCURRENCY"]
{% endif %}
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
# A thread is started when all others are busy. Most are there for clients that are slow to send;
# behind nginx, which waits for whole requests, a few will do.
threads = int(os.environ.get("WEB_THREADS", "64"))
# Seconds until a client must have sent its whole request, and until it must have its whole answer.
request_timeout, answer_timeout = 10, 30

# The main process only looks after the others. One of them loads the application itself, which
# takes 9 MiB less than two that share it; several are forked from a main process that has loaded
# it. So is one with Sentry, to which the main process has to report too.
# https://docs.gunicorn.org/en/stable/settings.html#preload-app
preload_app = workers > 1 or bool(os.environ.get("SENTRY_DSN"))
{% if cookiecutter.use_heroku == "yes" %}
if "DYNO" in os.environ:
    preload_app = True  # it writes the lines of the main process as Heroku's router writes its own
{% endif %}

# A worker that gives no sign of life for this time (seconds) is replaced.
timeout = 30
# A stop lets requests finish; the platforms allow 30 s in all.
graceful_timeout = 20
# Above the idle time of the proxies' connections to us (60 to 90 s), so that they close them first.
keepalive = 100

# max_requests is left out: with one process nobody answers while it is replaced, for seconds if a
# request takes long. Over 66,000 requests the process grew by 3 MB, and less and less.

# A heartbeat file on a disk can block the worker; /dev/shm is memory.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112, S108

# The application writes a line for each request itself, with its request id.
accesslog = None
errorlog = "-"

# Only the application's own settings (TRUSTED_PROXIES) decide whom to believe.
forwarded_allow_ips = ""

# The control socket would want a writable home directory.
control_socket_disable = True

# systemd hears from a process that answers. gunicorn would say that it is ready before it has
# loaded the application.
if "NOTIFY_SOCKET" in os.environ:
    os.environ["WEB_NOTIFY_SOCKET"] = os.environ.pop("NOTIFY_SOCKET")


# Until the application is loaded, lines have the form that it gives them (ops/logs.py). The main
# process keeps it: mostly it has no application.
line = {"format": "%(asctime)s %(levelname)-7s web %(name)s: %(message)s"}
if os.environ.get("LOG_FORMAT", "").lower() == "json":
    line = {
        "()": "pythonjsonlogger.json.JsonFormatter",
        "fmt": ["levelname", "name", "message"],
        "rename_fields": {"levelname": "level", "name": "logger"},
        "static_fields": {"process": "web"},
        "timestamp": "time",
    }
# https://docs.gunicorn.org/en/stable/settings.html#logconfig-dict
logconfig_dict = {
    "root": {},
    "loggers": {"gunicorn.error": {"handlers": ["console"]}},
    "formatters": {"generic": line},
}


class Worker(ThreadWorker):
    """gunicorn's threads, but no client holds one, or the loop that accepts clients, for long."""

    def init_process(self):
        self.began = {}
        threading.Thread(target=self.end_slow_requests, daemon=True).start()
        super().init_process()

    def set_accept_enabled(self, enabled):
        """Accept clients or not. One that ends takes those who wait at its door, and closes that.

        Else they would wait there until the longest request in progress has ended.
        """
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                seen = -1
                while seen != self.nr_conns:
                    seen = self.nr_conns
                    self.accept(listener)
                listener.close()

    def handle(self, conn):
        """Serve one request of a connection, in a thread. Returns whether it stays open."""
        self.began[conn] = time.monotonic()
        try:
            stays = super().handle(conn)
            if not stays:
                _let_go(conn.sock)
            return stays
        finally:
            del self.began[conn]

    def end_slow_requests(self):
        """Read no more from a client whose time is over, and later send it no more either."""
        while True:
            for conn, began in self.began.copy().items():
                age = time.monotonic() - began
                with contextlib.suppress(OSError):
                    if age > answer_timeout:
                        conn.sock.shutdown(socket.SHUT_RDWR)
                    elif age > request_timeout:
                        conn.sock.shutdown(socket.SHUT_RD)
            time.sleep(1)


worker_class = Worker


def _let_go(client):
    """Wait until a client has closed its side; gunicorn does it in the loop, where all others wait.

    Closed at once, it would not get the end of its answer if something that it sent is unread.
    """
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_WR)
        client.settimeout(2)
        while client.recv(65536):
            pass
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RD)


def pre_fork(server, worker):
    """Keep what is loaded out of the collector's sight, so that the processes go on sharing it.

    It saves 1 MiB: https://docs.python.org/3/library/gc.html#gc.freeze
    """
    gc.collect()
    gc.freeze()


def post_worker_init(worker):
    """Under systemd, say that the application is there, and then that requests are answered."""
    if "WEB_NOTIFY_SOCKET" in os.environ:
        _notify(b"READY=1")
        if "WATCHDOG_USEC" in os.environ:
            threading.Thread(target=_watch, args=(worker.sockets[0].sock,), daemon=True).start()


def _notify(state):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.connect(os.environ["WEB_NOTIFY_SOCKET"])
        to.send(state)


def _watch(listener):
    pause = int(os.environ["WATCHDOG_USEC"]) / 1_000_000 / 4
    while True:
        try:
            with socket.socket(listener.family, socket.SOCK_STREAM) as to:
                to.settimeout(pause)
                to.connect(listener.getsockname())
                to.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                answered = to.recv(64).split(b" ", 2)[1:2] == [b"200"]
            if answered:
                _notify(b"WATCHDOG=1")
        except OSError:
            # systemd restarts the service if none of the next tries succeeds either.
            pass
        time.sleep(pause)
