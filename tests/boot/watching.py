"""Polling of a URL: the longest time without an answer, and the time until a status."""

from __future__ import annotations

import threading
import time

from hyraxvm.vm.qemu import choose_accelerator
from tests.boot.guest import Guest

# When a file server hangs, other data may be without an answer for GAP seconds.  Its own data may
# be away for BACK seconds after it answers again.  The limits are higher where the machines are
# emulated, which a busy host slows down.
GAP, BACK = (15, 30) if choose_accelerator().name == "kvm" else (45, 60)


class Watch:
    """Polls `path` inside its block; `gap` is the longest time (s) between two good answers."""

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
    """Wait until `path` answers with `status`; return the seconds."""
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
