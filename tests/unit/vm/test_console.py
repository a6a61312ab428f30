"""The console: input to a real terminal, and reading its output."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyraxvm.vm.console import Console, ConsoleError


@contextlib.contextmanager
def terminal(command: str, folder: Path) -> Iterator[Console]:
    """Return a console on `command`, which runs in a real terminal of 80 columns."""
    log = folder / "console.log"
    with (
        log.open("ab") as shown,
        subprocess.Popen(
            ["script", "-qec", command, "/dev/null"],
            stdin=subprocess.PIPE,
            stdout=shown,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "PS1": "opendap@hyrax-vm:~$ ", "TERM": "vt220"},
        ) as process,
    ):
        assert process.stdin is not None
        console = Console(log, process.stdin, lambda: process.poll() is None)
        try:
            yield console
        finally:
            console.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(params=["sh", "bash --norc"])
def console(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Console]:
    """A console on a real shell, at a prompt like Debian's after some output."""
    (tmp_path / "console.log").write_text("".join(f"line {n}\n" for n in range(100)))
    with terminal(request.param, tmp_path) as console:
        console.expect(r"\$ ", 10)
        console.prepare()
        yield console


@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        ("true", 0, ""),
        ("exit 7", 7, ""),
        ("echo out; echo err >&2; false", 1, "out\nerr"),
        ("printf 'no newline'", 0, "no newline"),
        ("printf 'a\\n\\nb\\n\\n'", 0, "a\n\nb\n"),
        ("printf '%0500d' 7", 0, "0" * 499 + "7"),
        ("cat; echo 'stdin is empty'", 0, "stdin is empty"),
        ("echo '$HOME' \"it's\" '|&;<>'", 0, "$HOME it's |&;<>"),
        ("echo 'Cádiz €'", 0, "Cádiz €"),
        ("echo end-0123456789abcdef 0", 0, "end-0123456789abcdef 0"),
        (f"echo {'x' * 2500} | wc -c", 0, "2501"),
        ("seq 2000", 0, "\n".join(str(n) for n in range(1, 2001))),
    ],
)
def test_console_runs_commands(console: Console, command: str, status: int, output: str) -> None:
    assert console.run(command, 10) == (status, output)
    assert console.run("echo again", 10) == (0, "again")


def test_console_check_tells_what_failed(console: Console) -> None:
    assert console.check("echo fine") == "fine"
    with pytest.raises(
        ConsoleError, match=r"(?s)^LC_ALL=C ls /nowhere: exit status 2: .*No such file"
    ):
        console.check("LC_ALL=C ls /nowhere")


def test_console_deadline_shows_the_last_50_lines(console: Console) -> None:
    begun = time.monotonic()
    with pytest.raises(ConsoleError) as caught:
        console.run("sleep 5", 0.5)
    assert time.monotonic() - begun < 3
    assert "no answer within 0.5 s" in str(caught.value)
    _, shown = str(caught.value).split("--- the console's last lines ---\n")
    assert len(shown.splitlines()) == 50
    assert "line 99\n" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("command", ["a\nb", "x" * 3001])
def test_console_refuses_what_a_terminal_cannot_take(console: Console, command: str) -> None:
    with pytest.raises(ValueError, match="one line of 3,000 bytes"):
        console.run(command)


def test_console_logs_in_only_with_the_right_password(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        stty -echo
        seen=
        while :; do
            printf 'hyrax-vm login: '; read -r user
            # The banner is renewed while the name is typed.
            [ -n "$seen" ] || { seen=1; printf '\\nnews\\nhyrax-vm login: '; read -r user; }
            printf 'Password: '; read -r password
            [ "$user/$password" = opendap/right ] && break
            printf '\\nLogin incorrect\\n'
        done
        PS1='opendap@hyrax-vm:~$ ' exec sh -i
        """
    )
    path = tmp_path / "login.sh"
    path.write_text(script)
    with terminal(f"sh {path}", tmp_path) as console:
        assert console.try_login("opendap", "wrong", 10) is False
        console.login("opendap", "right", 10)
        assert console.run("echo $((6 * 7))", 10) == (0, "42")


def test_console_of_a_machine_that_ends_does_not_wait_for_the_deadline(tmp_path: Path) -> None:
    with terminal("echo last words", tmp_path) as console:
        begun = time.monotonic()
        assert "last words" in console.expect("words", 30)
        with pytest.raises(ConsoleError, match="the machine ended"):
            console.expect("more", 30)
        assert time.monotonic() - begun < 10
