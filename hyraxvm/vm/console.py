"""A guest's serial console, driven as a person drives it, with a deadline on everything."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, NamedTuple

import pexpect
from pexpect.spawnbase import SpawnBase

LOGIN_PROMPT: Final = r"\blogin: "
# Debian's prompt for a person, `user@host:directory$ `, with whatever colours around it.
_SHELL_PROMPT: Final = r"\w+@[\w.-]+:[^\r\n]*[$#] "


class ConsoleError(AssertionError):
    """The console did not show what was expected; the message ends with its last lines."""


class Result(NamedTuple):
    """A command's exit status, and its output and errors as one text."""

    status: int
    output: str


class Console:
    """A console that appends all that it shows to the file `log` and reads from `keyboard`.

    `log` is a file, because a guest must never wait for a reader: a socket or a pipe is full after
    some hundred single characters, and then the guest's firmware and kernel stop.
    `alive()` returns whether the console can still show something.  `typed` counts what was typed:
    lines and other keys.
    """

    def __init__(self, log: Path, keyboard: IO[bytes], alive: Callable[[], bool]) -> None:
        """Attach to the console; send nothing."""
        self.log = log
        self.typed = 0
        self._keyboard = keyboard
        self._shown = _Shown(log, alive)

    def expect(self, pattern: str, timeout: float) -> str:
        """Wait until the console shows a match of the regular expression `pattern`.

        Return all text that is new, up to the end of the match.

        Raises `ConsoleError`: there is no match within `timeout` seconds, or the machine ended.
        """
        try:
            self._shown.expect(pattern, timeout=timeout)
        except pexpect.ExceptionPexpect as error:
            what = "no answer" if isinstance(error, pexpect.TIMEOUT) else "the machine ended"
            raise ConsoleError(
                f"{what} within {timeout:g} s while waiting for {pattern!r}\n{self.tail()}"
            ) from None
        return str(self._shown.before) + str(self._shown.after)

    def send(self, line: str) -> None:
        """Type `line` and the Enter key."""
        self.press(f"{line}\r")

    def press(self, keys: str) -> None:
        """Type `keys` as they are."""
        self.typed += 1
        self._keyboard.write(keys.encode())
        self._keyboard.flush()

    def close(self) -> None:
        """Close the log; whoever opened the keyboard closes the keyboard."""
        self._shown.close()

    def tail(self, lines: int = 50) -> str:
        """Return the last `lines` lines of all that the console has shown."""
        text = self.log.read_bytes()[-64 * 1024 :].decode("utf-8", "replace")
        shown = re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[()].|[=>c])", "", text).splitlines()
        return "\n".join(["--- the console's last lines ---", *shown[-lines:]])

    def try_login(self, user: str, password: str, timeout: float) -> bool:
        """Answer one login prompt; return whether a shell's prompt came."""
        prompt = self.expect(LOGIN_PROMPT, timeout)
        # If the banner is renewed meanwhile, the typed name is lost and the prompt comes again.
        for _ in range(5):
            if not re.search(LOGIN_PROMPT + r"\Z", prompt):
                break
            self.send(user)
            prompt = self.expect(rf"[Pp]assword: ?|{LOGIN_PROMPT}", 60)
        self.send(password)
        answer = self.expect(rf"Login incorrect|{_SHELL_PROMPT}", 60)
        return not answer.endswith("Login incorrect")

    def login(self, user: str, password: str, timeout: float) -> None:
        """Log in and prepare the shell for `run`; `timeout` (seconds) is for the login prompt."""
        if not self.try_login(user, password, timeout):
            raise ConsoleError(f"{user} cannot log in\n{self.tail()}")
        self.prepare()

    def prepare(self) -> None:
        """Replace the shell at its prompt by one without echo, prompt and line editor."""
        ready = f"ready-{secrets.token_hex(8)}"
        shell = "exec env PS1= PS2= TERM=dumb SYSTEMD_COLORS=0 PAGER=cat sh"
        # The marker is sent in two halves, so that its echo is not taken for its output.
        self.send(f"exec sh -c 'stty -echo; echo {ready[:9]}\"\"{ready[9:]}; {shell}'")
        self.expect(ready + r"\r?\n", 60)

    def run(self, command: str, timeout: float = 60) -> Result:
        """Run a shell command (standard input empty) and return its status and output.

        Carriage returns and the last newline are removed from the output.  The command is typed
        into a terminal, so it must be one line of at most 3,000 bytes.
        """
        if len(command.encode()) > 3000 or "\n" in command:
            raise ValueError("a console command must be one line of 3,000 bytes at most")
        mark = secrets.token_hex(8)
        self.send(
            f"echo begin''-{mark}; ( {command} ) </dev/null 2>&1; s=$?; echo; echo end''-{mark} $s"
        )
        self.expect(rf"begin-{mark}\r?\n", timeout)
        text = self.expect(rf"end-{mark} \d+\r?\n", timeout)
        output, _, last = text.rpartition(f"end-{mark} ")
        output = output.replace("\r", "").removesuffix("\n").removesuffix("\n")
        return Result(int(last), output)

    def check(self, command: str, timeout: float = 60) -> str:
        """Run a command; return its output, or raise `ConsoleError` if it fails."""
        status, output = self.run(command, timeout)
        if status:
            raise ConsoleError(f"{command}: exit status {status}: {output}\n{self.tail()}")
        return output


class _Shown(SpawnBase):  # type: ignore[misc]  # pexpect is not typed
    """Matching by pexpect in a file that grows."""

    def __init__(self, log: Path, alive: Callable[[], bool]) -> None:
        super().__init__(encoding="utf-8", codec_errors="replace")
        self._file = log.open("rb", buffering=0)
        self._alive = alive

    def read_nonblocking(self, size: int = 1, timeout: float = 0) -> str:
        """Return what was added to the file.

        Raises pexpect's `TIMEOUT` if nothing was added in time, `EOF` if nothing can be any more.
        """
        deadline = time.monotonic() + timeout
        while True:
            # Ask before reading, so that the last thing that the machine shows is read too.
            alive = self._alive()
            if data := self._file.read(size):
                return str(self._decoder.decode(data, final=False))
            if not alive:
                raise pexpect.EOF("the machine has ended")
            if time.monotonic() > deadline:
                raise pexpect.TIMEOUT("nothing new")
            time.sleep(0.02)

    def close(self) -> None:
        self._file.close()
