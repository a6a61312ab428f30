"""Gives tasks to reader processes, ends those that hang, and remembers the files at fault."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import multiprocessing
import pickle
import signal
import socket
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from . import worker
from .errors import RequestError, away, damaged, too_large
from .reader import Identity
from .settings import Settings
from .site import IDLE as UNREAD
from .site import Request
from .tree import shown
from .worker import HEADER, MAX_PIECE, MiB, Reply, Rest, State, Task

PATIENCE = 20.0  # seconds that a task may take
FILE_SERVER = 3  # times as long may a task take that waits for a file server: it may be mounted
WAITING = 1.0  # seconds after which a task that waits for a file server is slow
COMPUTING = 4.0  # seconds after which any task is slow
EXTRA = 8  # processes that may be there while others are slow
SLOW_IN_FOLDER = 4  # processes that one data set may occupy
CONDEMNED = 600.0  # seconds for which a file that ended a process is not read
MAX_CONDEMNED = 100
MAX_PROVEN = 10_000  # paths that were answered before
BUDGET = 96 * MiB  # of pieces that are made or are on their way to clients
MAKING = 3  # times the size of a piece is taken while it is made
MIN_PIECE = 64 * 1024
FIRST_PIECE = 1 * MiB
IDLE = 10.0  # seconds after which an additional process that does nothing ends
TICK = 0.25  # seconds
_log = logging.getLogger("dapdir")


@dataclass(eq=False)
class Piece:
    """A piece of a response, and the slot of the process that made it."""

    reply: Reply
    data: bytes
    slot: int


@dataclass(eq=False)
class Job:
    """A task that waits for a process or is done by one.

    Without a request it is to close what is not read any more, for which no client waits.
    """

    request: Request | None
    state: State | None
    head: bool
    slot: int
    done: asyncio.Future[Piece]
    since: float = field(default_factory=time.monotonic)
    limit: int = 0
    again: bool = False

    @property
    def file(self) -> str:
        """The path of what is read."""
        return self.request.file if self.request else ""

    @property
    def folder(self) -> str:
        """The data set, or another folder with what is served: /opendap/data/NAME."""
        return "/".join(self.request.path.split("/")[:4]) if self.request else ""


class Process:
    """A reader process; `slot` numbers those that are there at the same time."""

    def __init__(self, slot: int, root: str, settings: Settings) -> None:
        """Start it."""
        self.slot = slot
        self.job: Job | None = None
        self.since = time.monotonic()
        self.waited = 0.0  # when it was last seen waiting for a file server
        self.doomed = False
        self.open = False  # whether it has files open
        self.heavy = ""  # the one that takes much memory
        self.shared = mmap.mmap(-1, HEADER + MAX_PIECE)
        # Messages keep their boundaries.
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        # The copy of this process needs no time to load the libraries, and shares their memory.
        context = multiprocessing.get_context("fork")
        self.process = context.Process(
            target=worker.run, args=(theirs, self.shared, root, settings), daemon=True
        )
        self.process.start()
        theirs.close()

    def seconds(self) -> float:
        """Return for how long it has done its job, or has been idle."""
        return time.monotonic() - self.since

    @property
    def slow(self) -> bool:
        """Whether its job is slow: others need another process."""
        seconds = self.seconds() if self.job else 0
        return seconds > COMPUTING or (seconds > WAITING and self.waits())

    def overdue(self, patience: float) -> bool:
        """Return whether its job takes too long."""
        if self.job is None or self.seconds() <= patience:
            return False
        now = time.monotonic()
        if self.waits():
            self.waited = now
        return now - self.waited > patience or self.seconds() > FILE_SERVER * patience

    def start(self, job: Job, task: Task | Rest) -> None:
        """Begin a job."""
        self.job, self.since = job, time.monotonic()
        with contextlib.suppress(OSError):  # if it has just ended, its end is heard
            self.channel.send(worker.written(task, self.shared))

    def waits(self) -> bool:
        """Return whether it waits for a file server: then nothing but a kill interrupts it."""
        try:
            state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state in "DT"


class Pool:
    """Reader processes, `size` of which are active at a time."""

    def __init__(self, size: int, root: str, settings: Settings, patience: float) -> None:
        """Serve `root`; `patience` is the longest time in seconds that a piece may take."""
        self._size, self._root, self._settings = size, root, settings
        self._patience = patience
        self._processes: list[Process] = []
        self._waiting: list[Job] = []
        self._condemned: dict[Identity, tuple[float, RequestError]] = {}
        self._proven: set[str] = set()
        self._heavy: set[str] = set()  # files that take much memory
        self._left = BUDGET
        self._loop = asyncio.get_running_loop()
        self._ticker = self._loop.create_task(self._tick())
        self._replace()

    def make(
        self, request: Request, state: State | None, head: bool, slot: int | None, small: bool
    ) -> asyncio.Future[Piece]:
        """Have a piece of a response made; the result may be a RequestError.

        The piece counts as on its way until `sent` is called.  `slot` is where the piece before it
        was made; `small` asks for a small piece.
        """
        if slot is None:
            slot = zlib.crc32(request.file.encode("utf-8", "replace"))
            slot %= self._size
        job = Job(request, state, head, slot, self._loop.create_future())
        # The first piece is there soon, and does not keep others waiting.
        job.limit = MIN_PIECE if small else MAX_PIECE if state else FIRST_PIECE
        self._waiting.append(job)
        self._dispatch()
        return job.done

    def sent(self, piece: Piece) -> None:
        """Free the memory of a piece, whoever still holds it."""
        self._left += len(piece.data)
        piece.data = b""

    def drop(self, made: asyncio.Future[Piece]) -> None:
        """Forget a piece for which nobody waits any more."""
        if not made.cancel() and not made.exception():
            self.sent(made.result())

    def close(self) -> None:
        """End all processes."""
        self._ticker.cancel()
        for each in self._processes:
            self._loop.remove_reader(each.channel)
            each.process.kill()

    def _dispatch(self) -> None:
        """Give waiting jobs to idle processes, to the one that did the one before if possible."""
        idle = {p.slot: p for p in self._processes if p.job is None and not p.doomed}
        for job in list(self._waiting):
            if not idle:
                return
            if job.done.done():  # its client has gone
                self._waiting.remove(job)
                continue
            if self._held_up(job) or not (fit := self._fit(job, idle)):
                continue
            process = idle.pop(job.slot if job.slot in fit else min(fit))
            self._waiting.remove(job)
            job.slot = process.slot
            job.limit = max(MIN_PIECE, min(job.limit, self._left // (2 * MAKING)))
            self._left -= job.limit * MAKING
            now = time.monotonic()
            condemned = {i: error for i, (until, error) in self._condemned.items() if until > now}
            assert job.request
            process.start(job, Task(job.request, job.state, job.head, job.limit, condemned))

    def _fit(self, job: Job, idle: dict[int, Process]) -> set[int]:
        """Return the slots of the idle processes that may do a job: none if it has to wait.

        Only one process at a time has a file open that takes much memory.  Other files are for the
        other processes, as long as one is idle.
        """
        heavy = [p for p in self._processes if not p.doomed and (p.heavy or self._loads(p))]
        slots = {p.slot for p in heavy}
        if job.file not in self._heavy:
            return idle.keys() - slots or {*idle}
        if not slots:
            return {*idle}
        return slots if slots <= idle.keys() and self._in_turn(job, heavy) else set()

    def _in_turn(self, job: Job, heavy: list[Process]) -> bool:
        """Return whether the open heavy files are this one, or were long enough."""
        files = {p.heavy for p in heavy}
        waited = time.monotonic() - job.since > COMPUTING
        return waited or job.file in files or not any(j.file in files for j in self._waiting)

    def _loads(self, process: Process) -> bool:
        return process.job is not None and process.job.file in self._heavy

    def _held_up(self, job: Job) -> bool:
        """Return whether the same file, or several of the same data set, are slow.

        A file that was never read yet may be one that occupies processes: it gets one.  A process
        that was killed and does not end, because its file server hangs, counts for its data set
        only: the file may be back before that process has gone.
        """
        busy = [p for p in self._processes if p.job]
        same = [p for p in busy if p.job and p.job.file == job.file and not p.doomed]
        if same and (job.file not in self._proven or any(p.slow for p in same)):
            return True
        folder = [p for p in busy if p.job and p.job.folder == job.folder]
        return len(folder) >= SLOW_IN_FOLDER and sum(p.slow for p in folder) >= SLOW_IN_FOLDER

    def _replace(self) -> None:
        """Have as many active processes as there should be."""
        while (
            sum(not p.slow and not p.doomed for p in self._processes) < self._size
            and len(self._processes) < self._size + EXTRA
        ):
            taken = {p.slot for p in self._processes}
            slot = next(n for n in range(len(taken) + 1) if n not in taken)
            process = Process(slot, self._root, self._settings)
            self._processes.append(process)
            self._loop.add_reader(process.channel, self._heard, process)

    def _heard(self, process: Process) -> None:
        try:
            message = process.channel.recv(MiB)
        except OSError:
            message = b""
        if not message:
            self._ended(process)
            return
        reply: Reply = pickle.loads(message)  # noqa: S301 - it comes from our own process
        job, process.job, process.since = process.job, None, time.monotonic()
        if job is None or process.doomed:  # its client has been answered
            return
        self._left += job.limit * MAKING
        process.open = reply.open
        process.heavy = (job.file or process.heavy) if reply.heavy else ""
        if job.done.done() or not job.request:  # its client has gone, or there is none
            pass
        elif reply.error:
            job.done.set_exception(reply.error)
        else:
            data = process.shared[HEADER : HEADER + reply.size]
            if process.slot >= self._size:  # it may not be needed again
                process.shared.madvise(mmap.MADV_REMOVE)
            self._left -= reply.size
            if len(self._proven) > MAX_PROVEN:
                self._proven.clear()
            self._proven.add(job.file)
            job.done.set_result(Piece(reply, data, process.slot))
        if job.request:
            (self._heavy.add if reply.heavy else self._heavy.discard)(job.file)
        too_heavy = reply.heavy and any(p.heavy for p in self._processes if p is not process)
        if reply.crowded or too_heavy:
            self._rest(process, everything=too_heavy)
        self._dispatch()

    def _ended(self, process: Process) -> None:
        self._loop.remove_reader(process.channel)
        process.channel.close()
        self._processes.remove(process)
        process.process.join(1)
        code = process.process.exitcode
        job = process.job
        if job and job.request and not process.doomed:
            self._left += job.limit * MAKING
            unread = worker.noted(process.shared) is None and not job.again
            if code is None:  # it cannot even end: it still waits for a file server
                self._fail(process, job, away(_name(job)), remember=False)
            elif code == 0 or unread:  # it ended before it began this job, because it had grown
                job.again = True
                self._waiting.insert(0, job)
            else:
                name = _name(job)
                # The kernel kills what takes too much memory.
                error = too_large(name) if code == -signal.SIGKILL else damaged(name)
                self._fail(process, job, error, remember=True)
        self._replace()
        self._dispatch()

    def _fail(self, process: Process, job: Job, error: RequestError, remember: bool) -> None:
        _log.error("%s; the process that read it was ended", error.message)
        identity = worker.noted(process.shared)
        if remember and identity:
            while len(self._condemned) >= MAX_CONDEMNED:
                del self._condemned[next(iter(self._condemned))]
            self._condemned[identity] = time.monotonic() + CONDEMNED, error
        if not job.done.done():
            job.done.set_exception(error)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            try:
                self._look_after()
            except Exception:
                # Such as a fork that fails for want of memory: the next look may succeed.
                _log.exception("cannot look after the reader processes")

    def _look_after(self) -> None:
        for process in list(self._processes):
            if process.job and not process.doomed and process.overdue(self._patience):
                self._end(process, process.job)
            elif not process.job and process.open and process.seconds() > UNREAD:
                self._rest(process)
            elif not process.job and process.seconds() > IDLE:
                self._dismiss(process)
        for job in list(self._waiting):
            if time.monotonic() - job.since > 2 * self._patience and self._held_up(job):
                self._waiting.remove(job)
                if not job.done.done():
                    job.done.set_exception(away(_name(job)))
        self._replace()
        self._dispatch()

    def _rest(self, process: Process, everything: bool = False) -> None:
        """Have an idle process close what is not read any more, or everything."""
        job = Job(None, None, False, process.slot, self._loop.create_future())
        process.start(job, Rest(everything))

    def _end(self, process: Process, job: Job) -> None:
        """End a process that makes no progress.

        It may remain for a while, if it waits for a file server, and is in the way of others that
        read there until then.
        """
        if job.request:
            # Its file server may have answered a moment ago.
            waits = time.monotonic() - process.waited <= self._patience
            name = _name(job)
            message = f"{name} is damaged: reading it took more than {self._patience:g} seconds"
            error = away(name) if waits else RequestError(500, message)
            self._fail(process, job, error, remember=not waits)
        else:
            _log.error("a reader that cannot close its files was ended")
        self._left += job.limit * MAKING
        process.doomed = True
        process.process.kill()

    def _dismiss(self, process: Process) -> None:
        """End a process that is not needed any more."""
        if process.slot >= self._size and not process.doomed:
            process.doomed = True
            process.process.terminate()


def _name(job: Job) -> str:
    assert job.request
    path = job.request.path.removeprefix("/opendap").removeprefix("/hyrax")
    stem, _, suffix = path.rpartition(".")
    return shown(stem if suffix in ("dds", "das", "dods", "ascii", "asc", "html") else path)
