"""What long work shows to people: a line for each stage, boot test or transfer that moves.

On a terminal these lines move at its lower edge.  Elsewhere work begins and ends with a line each,
with one every `HEARTBEAT` seconds between.  All that programs print is in their logs.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column

HEARTBEAT: Final = 30.0  # seconds
REFRESH: Final = 4  # times a second
WORTH: Final = 1.0  # seconds; what took less came from the cache, and predicts nothing
# A line of output that begins with the share that is done.
_SHARE: Final = re.compile(r" *(\d{1,3})% (.*)")


class Row:
    """Work that moves: how much of it is done, what it does now, and how long it may take."""

    def __init__(self, name: str, expected: float | None = None) -> None:
        """Begin now; `expected` is how many seconds the last run took."""
        self.name = name
        self.text = ""
        self._expected = expected
        self._share: float | None = None
        self._begin = time.monotonic()

    @property
    def seconds(self) -> float:
        """The seconds since the beginning."""
        return time.monotonic() - self._begin

    def line(self, line: str) -> None:
        """Take a line of output; `45% text` says that 45 of 100 parts are done."""
        line = "".join(filter(str.isprintable, line)).strip()
        if found := _SHARE.fullmatch(line):
            self._share = min(1.0, int(found[1]) / 100)
            line = found[2].strip()
        self.text = line or self.text

    def part(self, done: int, total: int) -> None:
        """Note that `done` of `total` bytes are moved."""
        self._share = done / total if total else 1.0
        self.text = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"

    @property
    def share(self) -> float | None:
        """The share that is done, from 0 to 1, or None if nothing is known."""
        if self._share is None and self._expected:
            return min(0.99, self.seconds / self._expected)
        return self._share

    @property
    def left(self) -> float | None:
        """The seconds that are left: by the last run, or else by the share that is done."""
        if self._expected and self.seconds < self._expected:
            return self._expected - self.seconds
        if self._share and self._share >= 0.05:
            return self.seconds * (1 - self._share) / self._share
        return None

    def __str__(self) -> str:
        """Return the state in one line."""
        share = "" if self.share is None else f"{self.share:.0%}"
        left = "" if self.left is None else f"about {clock(self.left)} left"
        state = ", ".join(filter(None, [share, left]))
        return f"{self.name}: {state or clock(self.seconds)}{f': {self.text}' if self.text else ''}"


class Display:
    """The rows that move now, for all threads of this process."""

    def __init__(self, console: Console) -> None:
        """Show rows on `console` while there are any."""
        self.console = console
        self._lock = threading.Lock()
        self._rows: dict[TaskID, Row] = {}
        self._bars: Bars | None = None

    def say(self, text: str) -> None:
        """Print a line, above the rows."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @property
    def moves(self) -> bool:
        """Whether lines can move here."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    @contextmanager
    def row(self, row: Row, say: Callable[[str], None]) -> Iterator[None]:
        """Show a row inside this block; where lines cannot move, `say` one now and then."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(row, say, ended), daemon=True)
        task = self._add(row) if self.moves else None
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            if task is not None:
                self._remove(task)

    def _watch(self, row: Row, say: Callable[[str], None], ended: threading.Event) -> None:
        moves = self.moves
        while not ended.wait(1 / REFRESH if moves else HEARTBEAT):
            if moves:
                self._update()
            else:
                say(str(row)[:160])

    def _add(self, row: Row) -> TaskID:
        with self._lock:
            if self._bars is None:
                self._bars = _bars(self.console)
                self._bars.start()
            task = self._bars.add_task(row.name, total=None, left="", text="", share="")
            self._rows[task] = row
            return task

    def _update(self) -> None:
        with self._lock:
            for task, row in self._rows.items():
                assert self._bars is not None
                self._bars.update(
                    task,
                    total=None if row.share is None else 1.0,
                    completed=row.share or 0.0,
                    share="" if row.share is None else f"{row.share:4.0%}",
                    left=clock(row.seconds) if row.left is None else f"{clock(row.left)} left",
                    text=row.text,
                )

    def _remove(self, task: TaskID) -> None:
        with self._lock:
            assert self._bars is not None
            del self._rows[task]
            self._bars.remove_task(task)
            if not self._rows:
                self._bars.stop()
                self._bars = None


def _bars(console: Console) -> Bars:
    """Return rich's display; on a narrow terminal it has no bars, and shortens what is long."""
    name = Column(no_wrap=True, overflow="ellipsis", ratio=2)
    text = Column(no_wrap=True, overflow="ellipsis", ratio=3)
    wide = console.width >= 80
    return Bars(
        TextColumn("{task.description}", markup=False, table_column=name),
        *([BarColumn(bar_width=16)] if wide else []),
        TextColumn("{task.fields[share]}", markup=False, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[left]}", markup=False, table_column=Column(no_wrap=True)),
        *([TextColumn("{task.fields[text]}", markup=False, table_column=text)] if wide else []),
        console=console,
        refresh_per_second=REFRESH,
        transient=True,
        expand=True,
    )


_display = Display(Console())


class Progress:
    """Shows stages and their times; several stages may run side by side."""

    def __init__(
        self, say: Callable[[str], None] | None = None, history: Path | None = None
    ) -> None:
        """Show stages on the terminal, or plain lines with `say`.

        `timings` collects the seconds of each finished stage.  The file `history` keeps them for
        the next run, which says from them how much time is left.
        """
        self.timings: dict[str, float] = {}
        self._say = say
        self._display = _display if say is None else Display(Console(force_terminal=False))
        self._history = history
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
        line = f"[{time.monotonic() - self._start:6.1f} s] {self._prefix}{text}"
        with self._lock:
            (self._say or self._display.say)(line)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time a stage, and show it while it runs.

        Yield a function to call with each line of its output.
        """
        row = Row(f"{self._prefix}{name}", self._expected(name))
        if not self._display.moves:
            self.say(f"{name} ...")
        try:
            with self._display.row(row, self._heartbeat):
                yield row.line
        except BaseException:
            self.say(f"{name} stopped after {row.seconds:.1f} s")
            raise
        self.timings[name] = round(row.seconds, 1)
        self.say(f"{name} done in {self.timings[name]:.1f} s")
        self._remember(name, self.timings[name])

    def _heartbeat(self, line: str) -> None:
        self.say(line.removeprefix(self._prefix))

    def _expected(self, name: str) -> float | None:
        return self._known().get(name)

    def _known(self) -> dict[str, float]:
        """Return stage -> seconds of the last run; empty if there was none."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            found = json.loads(self._history.read_text()) if self._history else {}
            return {str(name): float(took) for name, took in found.items()}
        return {}

    def _remember(self, name: str, took: float) -> None:
        if self._history and took > WORTH:
            with self._lock, suppress(OSError):  # it only serves a guess
                new = self._history.with_name(f".{self._history.name}")
                new.parent.mkdir(parents=True, exist_ok=True)
                new.write_text(json.dumps({**self._known(), name: took}, indent=1) + "\n")
                new.replace(self._history)


@contextmanager
def meter(title: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show the progress of a transfer; yield a function to call with each number of bytes moved.

    `done` of the `total` bytes were moved before.
    """
    row = Row(title)
    moved = done
    row.part(moved, total)

    def update(count: int) -> None:
        nonlocal moved
        moved += count
        row.part(moved, total)

    with _display.row(row, _display.say):
        yield update


def clock(seconds: float) -> str:
    """Return seconds as minutes and seconds, such as 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
