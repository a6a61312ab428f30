"""`python3 -m dapdir`: run the server under Gunicorn until a signal ends it."""

from __future__ import annotations

import ctypes
import gc
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import gunicorn.http.wsgi
from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import TConn, ThreadWorker

from . import SERVER, blocks
from .app import Application
from .settings import Settings

MAX_WORKERS = 4
THREADS = 16  # per worker; a client that reads slowly occupies one
STALLED = 60  # seconds without data from or to a client, after which its connection is closed


def main() -> None:
    """Read DAPDIR_ROOT, DAPDIR_HOME, DAPDIR_BIND, DAPDIR_WORKERS and the settings, and serve."""
    root = os.environ.get("DAPDIR_ROOT", "/data")
    home = os.environ.get("DAPDIR_HOME", "")
    workers = os.environ.get("DAPDIR_WORKERS", "2")
    for name, directory in (("DAPDIR_ROOT", root), ("DAPDIR_HOME", home or "/")):
        if not Path(directory).is_dir():
            sys.exit(f"dapdir: {name}={directory!r} is not a directory")
    if workers not in {str(n) for n in range(1, MAX_WORKERS + 1)}:
        sys.exit(f"dapdir: DAPDIR_WORKERS={workers!r} must be a number from 1 to {MAX_WORKERS}")
    try:
        settings = Settings.read(os.environ)
    except ValueError as error:
        sys.exit(f"dapdir: {error}")
    _limit_memory(int(workers))
    gunicorn.http.wsgi.SERVER = SERVER  # the Server header; there is no setting for it
    Server(
        root,
        home,
        settings,
        {
            "bind": os.environ.get("DAPDIR_BIND", "0.0.0.0:8080"),
            "workers": int(workers),
            "worker_class": Worker,
            "threads": THREADS,
            "worker_connections": 200,
            "preload_app": True,
            "keepalive": 5,
            "graceful_timeout": 10,
            "limit_request_line": 8190,
            "control_socket_disable": True,  # it would be written to the home directory
            "errorlog": "-",
            "when_ready": _when_ready,
        },
    ).run()


class Worker(ThreadWorker):  # type: ignore[misc]  # Gunicorn is not typed
    """Gunicorn's threaded worker, without two ways in which slow clients block others."""

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Accept connections only while a thread is free; leave others to another worker."""
        if self.alive:
            idle = len(self.keepalived_conns) + len(self.pending_conns)
            self.set_accept_enabled(self.nr_conns - idle < self.cfg.threads)
        super().wait_for_and_dispatch_events(timeout)

    def handle(self, conn: TConn) -> Any:
        """Answer one request; return False if the connection is finished."""
        keep = super().handle(conn)
        if keep is False:
            # Gunicorn would wait up to two seconds for the client to close the connection, in the
            # thread that accepts all others.
            conn.close(graceful=True)
            conn.close = lambda graceful=False: None
        return keep


class Server(BaseApplication):  # type: ignore[misc]  # Gunicorn is not typed
    """Gunicorn with settings from this program instead of from a command line."""

    def __init__(self, root: str, home: str, settings: Settings, options: dict[str, Any]) -> None:
        """Serve `root` and `home`; `options` have the names of Gunicorn's settings."""
        self._root = root
        self._home = home
        self._settings = settings
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        """Apply the options."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Application:
        """Make the application once, before Gunicorn forks the workers."""
        application = Application(self._root, self._home, self._settings)
        gc.freeze()  # otherwise the workers' first collection copies the memory that they share
        return application


def _limit_memory(workers: int) -> None:
    blocks.BUDGET = blocks.Budget(blocks.TOTAL // workers)
    # By default glibc keeps an arena per thread, and raises the size up to which it keeps freed
    # memory to that of the largest block: 130 MB in each worker instead of 5.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8  # malloc.h
        mallopt(m_arena_max, 1)
        mallopt(m_mmap_threshold, 256 * 1024)
        mallopt(m_trim_threshold, 256 * 1024)


def _when_ready(arbiter: Any) -> None:
    # Accepted connections inherit these limits.  Gunicorn lets a client stall a thread for ever.
    limit = struct.pack("ll", STALLED, 0)
    for listener in arbiter.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


if __name__ == "__main__":
    main()
