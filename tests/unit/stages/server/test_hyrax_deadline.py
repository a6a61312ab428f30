"""The deadline of the BES: a process that computes and moves no byte is ended, no other one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyraxvm.core.process import dying_with_parent
from hyraxvm.stages.provision import stage as provision

PROGRAM = provision.PROVISION / "servers/hyrax/guest/usr/lib/hyrax-vm/bes-deadline"


class Process:
    """A real process that sleeps, with invented files in a `/proc` of its own."""

    def __init__(self, root: Path, name: str = "beslistener") -> None:
        self.real = subprocess.Popen(dying_with_parent(["sleep", "60"]))
        self.folder = root / "proc" / str(self.real.pid)
        self.folder.mkdir(parents=True)
        self.name, self.used, self.read, self.written = name, 0, 8109, 15301
        self.write()

    def write(self) -> None:
        start = (
            f"{self.real.pid} ({self.name}) R 1 1 1 0 -1 0 0 0 0 0 {self.used} 0 0 0 20 0 1 0 7 9"
        )
        for name, text in (
            ("io", f"rchar: {self.read}\nwchar: {self.written}\nread_bytes: {self.used}\n"),
            ("stat", f"{start}\n"),
        ):
            new = self.folder / f"{name}.new"
            new.write_text(text)
            new.rename(self.folder / name)

    def works(self, ticks: int, read: int = 0, written: int = 0) -> None:
        self.used, self.read, self.written = (
            self.used + ticks, self.read + read, self.written + written,
        )  # fmt: skip
        self.write()


@pytest.fixture
def deadline(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The program, which looks every 50 ms."""
    text = PROGRAM.read_text()
    pause = "sleep(time - $ended < $while ? 1 : $pause);"
    assert pause in text
    copy = tmp_path / "bes-deadline"
    copy.write_text(text.replace(pause, "select undef, undef, undef, 0.05;"))
    argv = dying_with_parent(["perl", str(copy)])
    env = {"HYRAX_ROOT": str(tmp_path), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def test_only_what_computes_without_end_is_ended(
    tmp_path: Path, deadline: subprocess.Popen[str]
) -> None:
    reads, writes, loops = Process(tmp_path), Process(tmp_path), Process(tmp_path)
    waits, other = Process(tmp_path), Process(tmp_path, "python3")
    everything = [reads, writes, loops, waits, other]
    try:
        for _ in range(7):  # 70 s of processor time
            assert loops.used >= 6000 or loops.real.poll() is None
            # Less than 10 s: the program may look between the writing of the two files.
            reads.works(900, read=1)
            writes.works(900, written=1)
            loops.works(1000)
            other.works(1000)
            time.sleep(0.3)
        assert loops.real.wait(10) == -9
        assert [each.real.poll() for each in everything if each is not loops] == [None] * 4
        assert deadline.stderr is not None
        said = deadline.stderr.readline()
        assert said == (
            f"bes-deadline: ended process {loops.real.pid} of the BES, which computed for 60 s "
            "and moved no data\n"
        )
        # The next process that gets the same request has less time.
        other_try = Process(tmp_path)
        everything.append(other_try)
        time.sleep(0.3)
        other_try.works(900)
        time.sleep(0.3)
        assert other_try.real.poll() is None
        other_try.works(200)
        assert other_try.real.wait(10) == -9
        assert "which computed for 10 s" in deadline.stderr.readline()
        assert [reads.real.poll(), writes.real.poll(), waits.real.poll()] == [None] * 3
    finally:
        for each in everything:
            each.real.kill()
            each.real.wait()
