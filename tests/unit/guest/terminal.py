"""hyrax-setup's menu on a terminal of its own, driven as a person does: the real whiptail."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pexpect

from tests.unit.guest.guest_copy import Guest

ESCAPE, UP, DOWN, ENTER, INTERRUPT = "\x1b", "\x1bOA", "\x1bOB", "\r", "\x03"
# After the first one whiptail waits half a second for more, as other keys begin with it; the second
# ends the waiting and goes unseen.
ESCAPE_TWICE = ESCAPE * 2
# What a terminal does not show as a character.
_CONTROL = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()].|[=>78])|[\x0e\x0f]")


class Menu:
    """The menu of `guest`, and what it has shown and not been looked at."""

    def __init__(self, guest: Guest, size: tuple[int, int] = (25, 80), term: str = "vt220") -> None:
        self._seen = ""
        # The shell around it tells how it ended and what became of the terminal.
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
        """Wait for words on the screen; return what was shown before them and they."""
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
        """Take the row of the menu that is shown; the first is 0."""
        self.press(*[DOWN] * row, ENTER)

    def answer(self, words: str, *keys: str) -> str:
        """When `words` are shown, press keys or type text, and Enter; return what was shown."""
        shown = self.see(words)
        self.press(*keys, ENTER)
        return shown

    def choose(self, words: str, row: int) -> None:
        """When `words` are shown, take a row of their menu."""
        self.see(words)
        self.pick(row)

    def end(self) -> int:
        """Wait until it has ended; return its status. The terminal must be as it was."""
        text = self.see("gone")
        status = re.search(r"status=(\d+)", text)
        assert status, text
        assert _modes(text[status.end() :]) == self._before
        return int(status[1])


def _modes(text: str) -> list[str]:
    """Words of stty: the modes alone, not the size."""
    return re.findall(r"(?<![\w=])-?(?:isig|icanon|echo|opost|ixon|icrnl|iexten|onlcr)\b", text)
