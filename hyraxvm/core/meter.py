"""How far a transfer is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

HEARTBEAT = 15.0  # seconds between two lines where there is no terminal


@contextmanager
def meter(title: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show bytes, rate and time left; yields what takes the number of bytes moved.

    `done` of the `total` bytes are there before it starts.
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
