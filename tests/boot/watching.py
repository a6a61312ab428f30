"""A URL asked again and again, and the longest time in which it did not answer."""

from __future__ import annotations

import threading
import time

from tests.boot.guest import Guest

# Seconds for which nothing may be served when a file server hangs, and for which its data may be
# away once it answers.  The goals are 15 and 30; machines are emulated on one that is busy.
GAP, BACK = 45, 60


class Watch:
    """Asks for `path` until it is left; `gap` is the longest time between two good answers."""

    def __init__(self, guest: Guest, path: str) -> None:
        self._guest, self._path = guest, path
        self.gap = 0.0
        self.answers = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        last = time.monotonic()
        while not self._end.is_set():
            try:
                good = self._guest.get(self._path, timeout=30).status == 200
            except OSError:
                good = False
            now = time.monotonic()
            self.gap = max(self.gap, now - last)
            if good:
                last = now
                self.answers += 1
            self._end.wait(0.2)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join(60)


def until(guest: Guest, path: str, status: int, timeout: float) -> float:
    """Seconds until `path` answers with `status`."""
    started = time.monotonic()
    last: object = None
    while time.monotonic() - started < timeout:
        try:
            last = guest.get(path, timeout=10).status
            if last == status:
                return time.monotonic() - started
        except OSError as error:
            last = error
        time.sleep(0.3)
    raise AssertionError(f"{path}: {last} after {timeout} s, not {status}")
