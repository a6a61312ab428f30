"""What a person sees while something runs: on a real pseudo-terminal, and where there is none."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from hyraxvm.core import progress
from hyraxvm.core.paths import ROOT
from hyraxvm.core.progress import Progress, Row, clock, meter

# Two stages side by side, one with a share of its own, and lines from somewhere else.
PROGRAM = """
import sys, time
from functools import partial
from pathlib import Path
from hyraxvm.core import progress
from hyraxvm.core.parallel import run_parallel
progress.HEARTBEAT = 0.2
shown = progress.Progress(history=Path(sys.argv[1]))
def work(name, seconds):
    with shown.named("nfs").stage(name) as on_line:
        end = time.monotonic() + seconds
        step = 0
        while time.monotonic() < end:
            step += 1
            on_line(f" {step}% passed on first: test_number_{step} [\\x1b[31mred]")
            time.sleep(0.1)
run_parallel([partial(work, "rootfs", 1.2), partial(work, "boot test", 2.2)], 2)
print("result", flush=True)
"""
SHOW_CURSOR = "\x1b[?25h"


def started(history: Path, columns: int = 100, **variables: str) -> pexpect.spawn:
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    return pexpect.spawn(
        sys.executable, ["-c", PROGRAM, str(history)], cwd=str(ROOT), encoding="utf-8",
        dimensions=(24, columns), timeout=60,
        env={**clean, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **variables},
    )  # fmt: skip


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


def test_a_line_moves_for_each_stage_and_nothing_of_it_stays(tmp_path: Path) -> None:
    history = tmp_path / "cache/timings.json"
    history.parent.mkdir()
    history.write_text(json.dumps({"boot test": 62.0}))
    child = started(history)
    child.expect(r"nfs: boot test .*?(\d+%).*? 1:0\d left .*?passed on first: test_number_\d")
    child.expect(r"s\] nfs: rootfs done in 1\.\d s")
    child.expect(r"s\] nfs: boot test done in 2\.\d s")
    child.expect("result\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    found = json.loads(history.read_text())
    assert found.keys() == {"boot test", "rootfs"}
    assert 2 < found["boot test"] < 60
    assert [path.name for path in history.parent.iterdir()] == ["timings.json"]


def test_the_terminal_is_left_as_it_was(tmp_path: Path) -> None:
    child = started(tmp_path / "h")
    child.expect(pexpect.EOF)
    text = child.before
    assert text.index("\x1b[?25l") < text.rindex(SHOW_CURSOR) < text.index("result")
    assert "\x1b[31mred" not in text  # what a program prints does not steer the terminal


@pytest.mark.parametrize("columns", [24, 40, 79])
def test_a_narrow_terminal_gets_one_line_for_each_stage(tmp_path: Path, columns: int) -> None:
    child = started(tmp_path / "h", columns)
    child.expect(pexpect.EOF)
    lines = [line for line in plain(child.before).splitlines() if line and line[0] not in "[r"]
    assert {line.split()[0] for line in lines} == {"nfs:"}
    assert re.search(r"^nfs: .*\d% \d:\d\d left", "\n".join(lines), re.MULTILINE)
    assert max(len(line) for line in lines) <= columns


def test_no_color_is_kept(tmp_path: Path) -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
    child = started(tmp_path / "h")
    child.expect(pexpect.EOF)
    assert colour.search(child.before)
    child = started(tmp_path / "h", NO_COLOR="1")
    child.expect(pexpect.EOF)
    assert not colour.search(child.before)


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    child = started(tmp_path / "h")
    child.expect("passed on first")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    text = child.before
    assert SHOW_CURSOR in text
    assert "result" not in text
    assert child.signalstatus == signal.SIGINT or child.exitstatus in (1, 130)


def test_where_lines_cannot_move_there_are_few(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "h")],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = [re.sub(r"^\[ +[\d.]+ s\] ", "", line) for line in done.stdout.splitlines()]
    assert sorted(lines[:2]) == ["nfs: boot test ...", "nfs: rootfs ..."]
    assert re.fullmatch(r"nfs: boot test done in 2\.\d s", lines[-2])
    assert lines[-1] == "result"
    beats = [line for line in lines if "boot test: " in line]
    assert 4 <= len(beats) <= 11
    assert re.fullmatch(
        r"nfs: boot test: \d+%(, about \d:\d\d left)?: passed on first: test_number_\d+ .*",
        beats[0],
    )


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    child = started(tmp_path / "h", TERM="dumb")
    child.expect("nfs: boot test \\.\\.\\.")
    child.expect("nfs: boot test: ")
    child.expect("nfs: boot test done in")
    child.expect(pexpect.EOF)
    assert "\x1b" not in child.before


def test_the_time_left_comes_from_the_last_run_or_from_the_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    known, unknown = Row("known", 40.0), Row("unknown")
    now += 10
    assert (known.share, known.left) == (0.25, 30.0)
    assert (unknown.share, unknown.left) == (None, None)
    unknown.line(" 20% passed on first: test_a")
    assert (unknown.share, unknown.left) == (0.2, 40.0)
    assert str(unknown) == "unknown: 20%, about 0:40 left: passed on first: test_a"
    now += 60  # the last run was shorter: nothing more is known
    assert (known.share, known.left) == (0.99, None)
    assert clock(3725) == "62:05"


def test_a_broken_history_costs_nothing(tmp_path: Path) -> None:
    history = tmp_path / "timings.json"
    for text in ("{", "[]", '{"a": "x"}', '{"a": null}'):
        history.write_text(text)
        lines: list[str] = []
        with Progress(lines.append, history).stage("a"):
            pass
        begun, done = [re.sub(r"^\[.*?\] ", "", line) for line in lines]
        assert begun == "a ..."
        assert re.fullmatch(r"a done in \d\.\d s", done)
        assert history.read_text() == text  # nothing worth keeping


def test_a_transfer_counts_what_was_moved_before(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("x")
    row.part(3_000_000, 4_000_000)
    assert (row.share, row.text) == (0.75, "3 of 4 MB")
    with meter("a.zip", 4_000_000, 1_000_000) as moved:
        moved(3_000_000)
    assert capsys.readouterr().out == ""  # over before the first heartbeat
