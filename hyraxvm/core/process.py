"""Running other programs: logged, with a deadline, and never left behind.

Every child is the leader of its own process group and dies with this process, so that neither an
error, nor Ctrl-C, nor a SIGKILL of the build leaves a QEMU or a server running.
"""

from __future__ import annotations

import os
import queue
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hyraxvm.core.errors import Failure

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
STEP = 0.2  # seconds until work that waits sees that it is to stop
AHEAD = 4  # things that `ahead` has read before they are asked for
TAIL = 15  # lines of output that a failure quotes

T = TypeVar("T")

_running: set[subprocess.Popen[bytes]] = set()
_halts: list[object] = []


def dying_with_parent(argv: Sequence[str]) -> list[str]:
    """Wrap `argv` so that the kernel kills it when its parent is gone (prctl(2), PDEATHSIG)."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *argv]


def as_root(argv: Sequence[str]) -> list[str]:
    """Wrap `argv` so that it runs as root: as it is, or in a user namespace of this user's."""
    if os.geteuid() == 0:
        return list(argv)
    return ["unshare", "--map-root-user", "--map-auto", "--", *argv]


def run(
    argv: Sequence[str],
    *,
    log: Path,
    deadline: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run `argv`, append what it prints to `log`, and hand each line to `on_line`.

    `deadline` is in seconds from now.  Raises `Failure` when the program is not there, exits with
    another status than 0 or is not done in time; its message carries the last lines of output.
    """
    go_on()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        sink.write(f"$ {shlex.join(argv)}\n".encode())
        sink.flush()
        try:
            process = subprocess.Popen(
                dying_with_parent(argv),
                cwd=cwd,
                env=dict(env) if env is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise Failure(f"{argv[0]}: cannot be started ({error.strerror})") from error
        assert process.stdout is not None
        _running.add(process)
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            stop(process)

        timer = threading.Timer(deadline, expire)
        timer.daemon = True
        timer.start()
        tail: list[str] = []
        try:
            for raw in process.stdout:
                sink.write(raw)
                sink.flush()
                line = raw.decode("utf-8", "replace").rstrip()
                if line:
                    tail = [*tail[1 - TAIL :], line]
                if on_line:
                    on_line(line)
            status = process.wait()
        finally:
            timer.cancel()
            stop(process)
            _running.discard(process)
            process.stdout.close()
    if expired.is_set():
        raise Failure(f"{argv[0]}: not done after {deadline:.0f} s; log: {log}\n{_indent(tail)}")
    if status != 0:
        raise Failure(f"{argv[0]}: exit status {status}; log: {log}\n{_indent(tail)}")


def output(argv: Sequence[str], *, deadline: float = 60.0, cwd: Path | None = None) -> str:
    """Run a short program and return what it prints on standard output.

    Raises `Failure` when it is not there, fails, or takes longer than `deadline` seconds.
    """
    try:
        done = subprocess.run(
            dying_with_parent(argv),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline,
            check=False,
        )
    except OSError as error:
        raise Failure(f"{argv[0]}: cannot be started ({error.strerror})") from error
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{argv[0]}: not done after {deadline:.0f} s") from error
    if done.returncode != 0:
        raise Failure(f"{shlex.join(argv)}: exit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process group that `run` started: SIGTERM, then SIGKILL; returns when it is reaped."""
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        if process.poll() is not None:
            break
        _signal_group(process.pid, number)
        end = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
    # The leader is gone; whatever else it started in its group goes too.
    _signal_group(process.pid, signal.SIGKILL)


def stop_all() -> None:
    """End every program that `run` has started in any thread."""
    for process in list(_running):
        stop(process)


@contextmanager
def halt() -> Iterator[None]:
    """While it lasts, `go_on` fails in every thread, and with it what starts programs."""
    _halts.append(None)
    try:
        yield
    finally:
        _halts.pop()


def go_on() -> None:
    """Raise `Failure` if the work is to be stopped: for long work that is no program's."""
    if _halts:
        raise Failure("stopped, because something else has failed")


def pause(seconds: float) -> None:
    """Sleep, but not longer than `go_on` lets it."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        go_on()
        time.sleep(min(left, STEP))


def ahead(source: Generator[T, None, None]) -> Iterator[T]:
    """What `source` gives; `go_on` is asked also while it waits for the network.

    It runs in a thread of its own: a socket that waits cannot be told to stop.  Where nobody wants
    more of it, it is left behind, and ends when the network stirs, at the latest with the process.
    """
    given: queue.Queue[T | _End] = queue.Queue(AHEAD)
    left = threading.Event()

    def put(item: T | _End) -> bool:
        while not left.is_set():
            try:
                given.put(item, timeout=STEP)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for item in source:
                if not put(item):
                    source.close()
                    return
        except BaseException as error:
            put(_End(error))
        else:
            put(_End(None))

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            go_on()
            try:
                item = given.get(timeout=STEP)
            except queue.Empty:
                continue
            if not isinstance(item, _End):
                yield item
            elif item.error:
                raise item.error
            else:
                return
    finally:
        left.set()


class _End:
    """What `ahead` passes on last."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def patiently(call: Callable[[], T]) -> T:
    """What a call returns that waits for the network; as `ahead` does it."""
    return next(ahead(call() for _ in range(1)))


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _indent(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line[:200]}" for line in lines)
