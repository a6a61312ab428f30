"""Tasks side by side: results in order, the first error, and nothing left behind."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from hyraxvm.core import archives, cancel, process
from hyraxvm.core.errors import Failure
from hyraxvm.core.parallel import run_parallel
from hyraxvm.core.progress import Progress


def test_results_come_in_the_order_of_the_tasks() -> None:
    barrier = threading.Barrier(2, timeout=10)

    def slow() -> str:
        barrier.wait()
        time.sleep(0.1)
        return "slow"

    def quick() -> str:
        barrier.wait()
        return "quick"

    assert run_parallel([slow, quick], 2) == ["slow", "quick"]
    assert run_parallel([], 2) == []


def test_the_first_error_is_raised_and_the_others_programs_are_stopped(tmp_path: Path) -> None:
    started = threading.Event()
    after: list[str] = []

    def long() -> None:
        process.run(
            ["sh", "-c", "echo up; exec sleep 60"],
            log=tmp_path / "long",
            deadline=60,
            on_line=lambda line: started.set(),
        )

    def two_long() -> None:
        try:
            long()
        finally:
            after.append("second program")
            long()

    def inner() -> None:
        assert started.wait(10)
        run_parallel([lambda: process.run(["false"], log=tmp_path / "f", deadline=9), two_long], 2)

    begun = time.monotonic()
    # The nested call waits for its second task; before that ends, the outer call sees the first
    # one fail, because it was cancelled.
    with pytest.raises(Failure, match=r"^false: exit status 1"):
        run_parallel([long, inner], 2)
    assert time.monotonic() - begun < 20
    assert after == ["second program"]
    assert not cancel._programs


def test_work_that_is_no_program_stops_when_another_task_fails(tmp_path: Path) -> None:
    started = threading.Event()
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 2**33)

    def pack() -> None:
        started.set()
        archives.pack_zip(tmp_path / "x.zip", "x", [tmp_path / "large"], "2026-01-02T03:04:06Z")

    def fail() -> None:
        assert started.wait(10)
        raise Failure("no")

    begun = time.monotonic()
    with pytest.raises(Failure, match=r"^no$"):
        run_parallel([pack, fail], 2)
    assert time.monotonic() - begun < 5
    cancel.check_cancelled()


def test_tasks_that_have_not_begun_do_not_begin() -> None:
    begun = []

    def fail() -> None:
        raise Failure("no")

    with pytest.raises(Failure, match=r"^no$"):
        run_parallel([fail, lambda: time.sleep(0.2), *[lambda: begun.append(1)] * 5], 1)
    assert len(begun) < 5


def test_lines_of_images_side_by_side_have_their_names() -> None:
    lines: list[str] = []
    progress = Progress(lines.append)
    for name in ("nfs", "smb"):
        with progress.named(name).stage("disk") as on_line:
            on_line("quiet")
    with progress.stage("boot test"):
        pass
    assert [line.split("] ")[1].split(" in ")[0] for line in lines] == [
        "nfs: disk ...",
        "nfs: disk done",
        "smb: disk ...",
        "smb: disk done",
        "boot test ...",
        "boot test done",
    ]
    assert list(progress.timings) == ["boot test"]
