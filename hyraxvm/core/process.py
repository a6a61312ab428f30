"""Running other programs: with a log and a deadline, and never left behind.

Every child leads its own process group and dies with this process, so that neither an error, nor
Ctrl-C, nor a SIGKILL of the build leaves a QEMU or a server running.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hyraxvm.core.cancel import check_cancelled, stoppable
from hyraxvm.core.errors import Failure, Overdue

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
TAIL = 15  # lines of output that a failure quotes
MOST_SAID = 500  # bytes that a failure of one line quotes


def dying_with_parent(argv: Sequence[str]) -> list[str]:
    """Wrap `argv` so that the kernel kills it when its parent is gone (prctl(2), PDEATHSIG)."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *argv]


def as_root(argv: Sequence[str]) -> list[str]:
    """Return `argv` if this process is root, or else wrap it in a user namespace with a root."""
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
    """Run `argv`, append what it prints to `log`, and pass each line to `on_line`.

    `deadline` is in seconds.

    Raises `Failure`: the program is missing, or exits with a status other than 0; `Overdue`: it is
    not done in time.  The message ends with the last lines of output.
    """
    check_cancelled()
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
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            stop(process)

        timer = threading.Timer(deadline, expire)
        timer.daemon = True
        tail: list[str] = []
        with stoppable(partial(stop, process)):
            timer.start()
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
                process.stdout.close()
    if expired.is_set():
        raise Overdue(f"{argv[0]}: not done after {deadline:.0f} s; log: {log}\n{_indent(tail)}")
    if status != 0:
        raise Failure(f"{argv[0]}: exit status {status}; log: {log}\n{_indent(tail)}")


def output(argv: Sequence[str], *, deadline: float = 60.0, cwd: Path | None = None) -> str:
    """Run a short program; return what it prints on standard output.

    Raises `Failure`: it is missing, exits with a status other than 0, or takes longer than
    `deadline` seconds.  The message has what it prints on standard error.
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


@contextmanager
def piped(
    argv: Sequence[str], *, deadline: float, stdin: Any, stdout: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `argv` while this block feeds it or reads from it; `stdin` and `stdout` are Popen's.

    `deadline` is in seconds.  It ends when the block ends.

    Raises `Failure`, of one line: the program is missing, exits with a status other than 0, or is
    not done in time.
    """
    check_cancelled()
    expired = threading.Event()
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                dying_with_parent(argv),
                stdin=stdin,
                stdout=stdout,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            raise Failure(f"{argv[0]}: cannot be started ({error.strerror})") from error

        def expire() -> None:
            expired.set()
            stop(process)

        timer = threading.Timer(deadline, expire)
        timer.daemon = True
        timer.start()
        try:
            with stoppable(partial(stop, process)), process:
                yield process
        except BrokenPipeError:
            pass  # its exit status and what it printed say why
        finally:
            timer.cancel()
            stop(process)
        errors.seek(0)
        said = " ".join(errors.read(MOST_SAID).decode("utf-8", "replace").split())
    if expired.is_set():
        raise Failure(f"{argv[0]}: not done after {deadline:.0f} s")
    if process.returncode:
        raise Failure(f"{argv[0]}: exit status {process.returncode}: {said}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process group that `run` started: SIGTERM, then SIGKILL; return when it is reaped."""
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        if process.poll() is not None:
            break
        _signal_group(process.pid, number)
        end = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
    # The leader of the group has ended; end the rest of the group.
    _signal_group(process.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _indent(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line[:200]}" for line in lines)
