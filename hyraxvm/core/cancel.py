"""Cancelling: when one task fails, the work in all other threads ends.

The state is global to the process: a task that fails ends the programs of all threads.  Otherwise
every function between a task and the program that it runs would need one more argument.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hyraxvm.core.errors import Failure

STEP = 0.2  # seconds after which waiting work notices that it is cancelled
AHEAD = 4  # items that `in_background` reads before they are asked for

T = TypeVar("T")

_cancellations: list[object] = []
_programs: set[Callable[[], None]] = set()


@contextmanager
def cancelling() -> Iterator[None]:
    """Cancel all work while this block runs.

    `check_cancelled`, and every function that calls it, raises `Failure` in all threads.
    """
    _cancellations.append(None)
    try:
        yield
    finally:
        _cancellations.pop()


def check_cancelled() -> None:
    """Raise `Failure` if the work is cancelled; long loops in Python call it.

    Code that waits for a program need not call it: `stop_programs` ends the program.
    """
    if _cancellations:
        raise Failure("stopped, because something else has failed")


@contextmanager
def stoppable(stop: Callable[[], None]) -> Iterator[None]:
    """Have `stop_programs` call `stop` while this block runs."""
    _programs.add(stop)
    try:
        yield
    finally:
        _programs.discard(stop)


def stop_programs() -> None:
    """End every program that runs in any thread."""
    for stop in list(_programs):
        stop()


def sleep(seconds: float) -> None:
    """Sleep; raise `Failure` as soon as the work is cancelled."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        check_cancelled()
        time.sleep(min(left, STEP))


def in_background(source: Generator[T, None, None]) -> Iterator[T]:
    """Yield the items of `source`, which runs in a background thread.

    So a read that blocks in `source` can be cancelled.  If the caller abandons the rest, the thread
    ends when its read returns, or with the process.
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
            check_cancelled()
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
    """The last item from the thread of `in_background`: the error that ended it, or None."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def call_in_background(call: Callable[[], T]) -> T:
    """Run one blocking call in a background thread, so that it can be cancelled.

    Return the call's result; raise its error.
    """
    return next(in_background(call() for _ in range(1)))
