"""What long work shows to people: stages with their times and output, and transfers."""

from __future__ import annotations

import copy
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

HEARTBEAT = 15.0  # seconds between two lines where not every line is shown


class Progress:
    """Prints stages and their times; several stages may run side by side."""

    def __init__(self, say: Callable[[str], None] = print) -> None:
        """Print with `say`; `timings` collects the seconds of each finished stage."""
        self.timings: dict[str, float] = {}
        self._say = say
        self._prefix = ""
        self._start = time.monotonic()
        self._lock = threading.Lock()

    def named(self, name: str) -> Progress:
        """Return a `Progress` with its own timings, whose lines begin with `name`."""
        other = copy.copy(self)
        other.timings = {}
        other._prefix = f"{name}: "
        return other

    def say(self, text: str) -> None:
        """Print one line with the seconds since the start."""
        with self._lock:
            self._say(f"[{time.monotonic() - self._start:6.1f} s] {self._prefix}{text}")

    @contextmanager
    def stage(self, name: str, loud: bool = False) -> Iterator[Callable[[str], None]]:
        """Time a stage; yield a function to call with each line of its output.

        A loud stage shows every line; a quiet one shows a line every `HEARTBEAT` seconds.
        """
        begin = time.monotonic()
        last = begin

        def on_line(line: str) -> None:
            nonlocal last
            now = time.monotonic()
            if loud or now - last >= HEARTBEAT:
                last = now
                self.say(f"{name}: {line[:160]}")

        self.say(f"{name} ...")
        try:
            yield on_line
        except BaseException:
            self.say(f"{name} stopped after {time.monotonic() - begin:.1f} s")
            raise
        self.timings[name] = round(time.monotonic() - begin, 1)
        self.say(f"{name} done in {self.timings[name]:.1f} s")


@contextmanager
def meter(title: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show the progress of a transfer; yield a function to call with each number of bytes moved.

    A terminal gets a bar with the rate and the time left; a log gets a line every `HEARTBEAT`
    seconds.  `done` of the `total` bytes were moved before.
    """
    terminal = sys.stderr.isatty()
    last = time.monotonic()
    with tqdm(
        total=total,
        initial=done,
        desc=title,
        unit="B",
        unit_scale=True,
        disable=not terminal,
        dynamic_ncols=True,
        leave=False,
    ) as bar:
        moved = done

        def update(count: int) -> None:
            nonlocal last, moved
            moved += count
            bar.update(count)
            now = time.monotonic()
            if not terminal and now - last >= HEARTBEAT:
                last = now
                print(f"{title}: {moved / 1e6:.0f} of {total / 1e6:.0f} MB", flush=True)

        yield update
