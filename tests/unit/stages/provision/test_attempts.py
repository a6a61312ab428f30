"""A provisioning boot whose emulator loses an interrupt is tried again, once; no other is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure, Overdue
from hyraxvm.stages.provision import stage

Outcome = Callable[[Path], None]


def done(work: Path) -> None:
    (work / "output").mkdir()
    (work / "output" / stage.RESULT).write_text("disk")


def overdue(work: Path) -> None:
    (work / "output").mkdir()  # Packer was killed
    raise Overdue("packer: not done after 420 s")


def hung(work: Path) -> None:
    words = "rcu: rcu_preempt kthread timer wakeup didn't happen for 5251 jiffies!\n"
    stage._console(work).write_text(2 * words)
    raise Failure("packer: exit status 1")


def failed(work: Path) -> None:
    raise Failure("packer: exit status 1")


def provision(
    folder: Path, monkeypatch: pytest.MonkeyPatch, outcomes: list[Outcome]
) -> tuple[Path, list[str]]:
    said: list[str] = []

    def run(argv: list[str], **_: object) -> None:
        outcomes.pop(0)(Path(argv[-1]).parent)

    def stage_files(recipe: Any, disk: Any, image: Any, work: Path) -> Path:
        return work / "image.pkr.hcl"

    monkeypatch.setattr(stage, "run", run)
    monkeypatch.setattr(stage, "stage_files", stage_files)
    nothing: Any = None
    results = StageCache(folder)
    made = stage.build(results, nothing, "key", nothing, nothing, folder / "log", said.append)
    return made, said


@pytest.mark.parametrize("first", [overdue, hung])
def test_it_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Outcome) -> None:
    made, said = provision(tmp_path, monkeypatch, [first, done])
    assert made.read_text() == "disk"
    assert said[1:] == ["the emulator failed: provisioning again"]  # after Packer's version


@pytest.mark.parametrize("outcomes", [[failed], [overdue, overdue], [hung, failed]])
def test_other_faults_and_a_second_one_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcomes: list[Outcome]
) -> None:
    with pytest.raises(Failure, match="packer: "):
        provision(tmp_path, monkeypatch, outcomes)
    assert outcomes == []
