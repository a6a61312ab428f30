"""What a person sees of long work: which stage, for how long, and its output where it helps."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HEARTBEAT = 15.0  # seconds between two signs of life of a quiet stage


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
        """Return one with its own timings, whose lines begin with `name`."""
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
        """Time a stage; yields what takes its lines of output.

        A loud stage shows every line, a quiet one the latest every `HEARTBEAT` seconds.
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
