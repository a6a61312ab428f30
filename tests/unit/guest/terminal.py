"""hyrax-setup's menu, with the real whiptail on a pseudo-terminal, driven as by a person."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pexpect

from tests.unit.guest.guest_copy import Guest

ESCAPE, UP, DOWN, ENTER, INTERRUPT = "\x1b", "\x1bOA", "\x1bOB", "\r", "\x03"
# After one Escape whiptail waits half a second for the rest of a key's sequence. A second one ends
# the waiting, and has no other effect.
ESCAPE_TWICE = ESCAPE * 2
# Control sequences, which a terminal does not show.
_CONTROL = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()].|[=>78])|[\x0e\x0f]")


class Menu:
    """The menu of `guest`, and its output that `see` has not returned yet."""

    def __init__(self, guest: Guest, size: tuple[int, int] = (25, 80), term: str = "vt220") -> None:
        self._seen = ""
        # The shell around it prints its exit status, and the terminal's modes before and after it.
        program = f"{guest.root}/usr/bin/hyrax-setup"
        script = f"trap : INT; stty -a; echo begin; {program}; echo status=$?; stty -a; echo gone"
        self.child = pexpect.spawn(
            "/bin/sh",
            ["-c", script],
            env=guest.env | {"TERM": term},
            dimensions=size,
            encoding="utf-8",
            timeout=30,
        )
        self.child.delaybeforesend = None  # pexpect would wait 50 ms before each key
        self._before = _modes(self.see("begin"))

    def see(self, words: str) -> str:
        """Wait for words on the screen; return what was shown up to their end."""
        deadline, shown = time.monotonic() + 30, ""
        while time.monotonic() < deadline:
            with suppress(pexpect.TIMEOUT, pexpect.EOF):
                self._seen += self.child.read_nonblocking(65536, 0.2)
            shown = _CONTROL.sub("", self._seen)
            before, found, after = shown.partition(words)
            if found:
                self._seen = after
                return before + found
        raise AssertionError(f"{words!r} does not come:\n{shown}")

    def press(self, *keys: str) -> None:
        """Press keys, or type text."""
        for key in keys:
            self.child.send(key)

    def pick(self, row: int) -> None:
        """Choose a row of the menu that is shown; the first is 0."""
        self.press(*[DOWN] * row, ENTER)

    def answer(self, words: str, *keys: str) -> str:
        """Wait for `words`, then press keys or type text, and Enter; return what was shown."""
        shown = self.see(words)
        self.press(*keys, ENTER)
        return shown

    def choose(self, words: str, row: int) -> None:
        """Wait for `words`, then choose a row of their menu."""
        self.see(words)
        self.pick(row)

    def end(self) -> int:
        """Wait until the menu has ended; return its status. The terminal must be as before."""
        text = self.see("gone")
        status = re.search(r"status=(\d+)", text)
        assert status, text
        assert _modes(text[status.end() :]) == self._before
        return int(status[1])


def _modes(text: str) -> list[str]:
    """Return the modes in stty's output, without the size."""
    return re.findall(r"(?<![\w=])-?(?:isig|icanon|echo|opost|ixon|icrnl|iexten|onlcr)\b", text)
