"""A reader process: makes one piece of one response at a time, in memory shared with the server.

netCDF-C and HDF5 may crash, hang or take much memory on a damaged file.  They do it here only, and
the server ends this process then.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import mmap
import os
import pickle
import resource
import signal
import socket
import stat
import struct
import time
from dataclasses import dataclass, replace
from pathlib import Path

from . import bodies, native
from .bodies import Cursor
from .errors import RequestError, too_large
from .reader import Identity
from .settings import Settings
from .site import IDLE, MAX_OPEN, Request, Site

MiB = 1024 * 1024
MAX_PIECE = 16 * MiB
READER_MEMORY = 320 * MiB  # that a process may take, besides what all share
RECYCLED = 64 * MiB  # a process that has grown by so much between two tasks ends
# Octets that an open file takes, with which it is heavy.  netCDF-C opens all variables of a file,
# with 25 kB and more for each.
HEAVY = 64 * MiB
QUICK = 0.02  # seconds; a shorter task does not change the memory much
_HEADER = struct.Struct("4q")  # identity of the file that is read
HEADER = 64
_log = logging.getLogger("dapdir")

State = tuple[Identity | None, Cursor]
"""Where a response goes on."""


@dataclass(frozen=True)
class Task:
    """A piece of a response to make.

    `limit` is its greatest size in octets; `condemned` are files that must not be read again.
    """

    request: Request
    state: State | None
    head: bool
    limit: int
    condemned: dict[Identity, RequestError]


@dataclass(frozen=True)
class Rest:
    """The task to close what is not read any more, or `everything`.

    It is a task because it may never end: to close a file asks its file server.
    """

    everything: bool = False


@dataclass(frozen=True)
class Reply:
    """What became of a task: `size` octets are in the shared memory; `state` is None at the end.

    `open`: files are open, which must be closed when nobody reads them any more.  `crowded`: they
    are too many, or take too much memory.  `heavy`: one of them alone takes much.
    """

    size: int = 0
    state: State | None = None
    status: int = 0
    content_type: str = ""
    headers: dict[str, str] | None = None
    length: int | None = None
    error: RequestError | None = None
    open: bool = False
    crowded: bool = False
    heavy: bool = False


def noted(shared: mmap.mmap) -> Identity | None:
    """Return the file that a process reads, if any."""
    device, inode, size, modified = _HEADER.unpack_from(shared)
    return (device, inode, size, modified) if inode else None


def written(task: Task | Rest, shared: mmap.mmap) -> bytes:
    """Write a task, which may be longer than a message, for a process; return the message."""
    octets = pickle.dumps(task)
    _HEADER.pack_into(shared, 0, 0, 0, 0, 0)
    shared[HEADER : HEADER + len(octets)] = octets
    return len(octets).to_bytes(4, "big")


def _read(message: bytes, shared: mmap.mmap) -> Task | Rest:
    octets = shared[HEADER : HEADER + int.from_bytes(message, "big")]
    task: Task | Rest = pickle.loads(octets)  # noqa: S301 - it comes from the server process
    return task


def run(channel: socket.socket, shared: mmap.mmap, root: str, settings: Settings) -> None:
    """Do tasks until the server closes `channel`."""
    _become_a_reader(channel)
    native.bound_chunk_cache()
    reader = Reader(shared, root, settings)
    while message := channel.recv(MiB):
        task = _read(message, shared)
        if (rest := reader.before(task)) and reader.rest(rest.everything):
            break  # the server gives the task to another process
        reply = reader.do(task) if isinstance(task, Task) else Reply()
        reply = replace(reply, open=reader.open, crowded=reader.crowded, heavy=reader.heavy)
        channel.send(pickle.dumps(reply))
    os._exit(0)


class Reader:
    """Does tasks."""

    def __init__(self, shared: mmap.mmap, root: str, settings: Settings) -> None:
        """Write pieces to `shared`, behind its header."""
        self._shared = shared
        self._target = memoryview(shared)[HEADER:]
        self._condemned: dict[Identity, RequestError] = {}
        self._site = Site(root, settings, self._enter)
        self._before = self._normal = self._taken = _private()
        self._close_all = False
        self._heavy = ""  # the file that takes much memory

    @property
    def open(self) -> bool:
        """Whether files are open."""
        return self._site.open > 0

    @property
    def crowded(self) -> bool:
        """Whether files must be closed before the next task."""
        return self._close_all or self._site.open > MAX_OPEN

    @property
    def heavy(self) -> bool:
        """Whether a file is open that takes much memory."""
        return bool(self._heavy)

    def before(self, task: Task | Rest) -> Rest | None:
        """Return what must be closed before a task: a heavy file leaves no room for another."""
        if isinstance(task, Rest):
            return task
        return Rest(everything=True) if self._heavy not in ("", task.request.file) else None

    def do(self, task: Task) -> Reply:
        """Do a task."""
        self._condemned = task.condemned
        started = time.monotonic()
        try:
            reply = self._piece(task)
        except RequestError as error:
            self._close_all |= error.status >= 500
            reply = Reply(error=error)
        except MemoryError:
            self._close_all = True
            reply = Reply(error=too_large(task.request.path.rpartition("/")[2]))
        except Exception:
            _log.exception("cannot answer %r", task.request.path)
            failure = RequestError(500, "the server failed; the details are in its log")
            reply = Reply(error=failure)
        if time.monotonic() - started > QUICK:
            self._weigh(task.request.file)
        return reply

    def _weigh(self, file: str) -> None:
        """Note what the file takes that was just read."""
        if self._has_grown():
            native.give_memory_back()
            if _private() >= self._taken + HEAVY:  # only opening a file takes so much, and keeps it
                self._heavy, self._normal = file, _private()
            self._close_all |= self._has_grown()
        self._taken = _private()

    def _piece(self, task: Task) -> Reply:
        identity, cursor = task.state or (None, bodies.START)
        answer = self._site.answer(task.request, identity)
        size, after = 0, None
        if not (task.head and answer.body.length is not None):
            data, after = answer.body.piece(cursor, task.limit)
            size = bodies.store(data, self._target)
        state = (answer.identity, after) if after else None
        if task.state:
            return Reply(size, state)
        length = answer.body.length
        headers = answer.headers
        return Reply(size, state, answer.status, answer.content_type, headers, length)

    def _enter(self, identity: Identity) -> None:
        if identity in self._condemned:
            raise self._condemned[identity]
        _HEADER.pack_into(self._shared, 0, *identity)

    def rest(self, everything: bool) -> bool:
        """Close what nobody reads any more; return whether this process keeps too much memory."""
        everything |= self._close_all
        if self._site.close(0 if everything else IDLE):
            if everything:
                gc.collect()
            native.give_memory_back()
        self._close_all = False
        if not self._site.open:
            self._heavy, self._normal = "", self._before
        self._taken = _private()
        return self._has_grown()

    def _has_grown(self) -> bool:
        return _private() >= self._normal + RECYCLED


def _private() -> int:
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * mmap.PAGESIZE


def _become_a_reader(channel: socket.socket) -> None:
    """Leave behind what this process has from the server, of which it is a copy."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pr_set_pdeathsig = 1  # prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are wanted
        descriptor = int(name)
        with contextlib.suppress(OSError):
            if descriptor != channel.fileno() and stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.close(descriptor)
    status = Path("/proc/self/status").read_text()
    data = int(status.split("VmData:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (data + READER_MEMORY, data + READER_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
