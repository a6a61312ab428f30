"""`python3 -m dapdir`: run the server until a signal ends it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from .app import Application, Protocol
from .pool import PATIENCE, Pool
from .settings import Settings

MAX_WORKERS = 4


def main() -> None:
    """Read DAPDIR_ROOT, DAPDIR_BIND, DAPDIR_WORKERS, DAPDIR_PATIENCE and the settings; serve."""
    root = os.environ.get("DAPDIR_ROOT", "/data")
    bind = os.environ.get("DAPDIR_BIND", "127.0.0.1:8081")
    workers = os.environ.get("DAPDIR_WORKERS", "2")
    patience = os.environ.get("DAPDIR_PATIENCE", f"{PATIENCE:g}")
    if not Path(root).is_dir():
        sys.exit(f"dapdir: DAPDIR_ROOT={root!r} is not a directory")
    if workers not in {str(n) for n in range(1, MAX_WORKERS + 1)}:
        sys.exit(f"dapdir: DAPDIR_WORKERS={workers!r} must be a number from 1 to {MAX_WORKERS}")
    if not patience.isascii() or not patience.isdigit() or not int(patience):
        sys.exit(f"dapdir: DAPDIR_PATIENCE={patience!r} must be a number of seconds from 1 on")
    host, _, port = bind.rpartition(":")
    if not host or not port.isdigit():
        sys.exit(f"dapdir: DAPDIR_BIND={bind!r} must be ADDRESS:PORT, such as 127.0.0.1:8081")
    try:
        listening = socket.create_server(
            (host.strip("[]"), int(port)),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=1024,
        )
    except OSError as error:
        sys.exit(f"dapdir: DAPDIR_BIND={bind!r}: {error.strerror}")
    # Connections inherit it.  asyncio sets it only on sockets that name their protocol.  Else a
    # body waits 40 ms for the client's acknowledgement of the header (RFC 1122, 4.2.3.2, 4.2.3.4).
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    settings = Settings.read(os.environ, lambda said: print(f"dapdir: {said}", file=sys.stderr))
    _save_memory()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(_serve(listening, int(workers), root, settings, int(patience)))


async def _serve(
    listening: socket.socket, workers: int, root: str, settings: Settings, patience: int
) -> None:
    pool = Pool(workers, root, settings, patience)
    config = uvicorn.Config(
        Application(pool, settings),
        loop="asyncio",
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,  # longer than that of the proxy before it
        timeout_graceful_shutdown=10,
    )
    try:
        await uvicorn.Server(config).serve(sockets=[listening])
    finally:
        pool.close()


def _save_memory() -> None:
    gc.freeze()  # otherwise the first collection of a process copies the memory that all share
    # By default glibc raises the size up to which it keeps freed memory to that of the largest
    # block.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8  # malloc.h
        mallopt(m_arena_max, 1)
        mallopt(m_mmap_threshold, 512 * 1024)
        mallopt(m_trim_threshold, 1024 * 1024)


if __name__ == "__main__":
    main()
