"""`./inv boot-test` with several files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from invoke import Context

from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.workspace import Workspace
from hyraxvm.formats import verify
from hyraxvm.stages.boot_test import stage
from hyraxvm.tasks import building


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    paths = [tmp_path / name for name in ("a.zip", "b.ova", "c.qcow2")]
    for path in paths:
        path.touch()
    workspace = Workspace(tmp_path, tmp_path / "artifacts", StageCache(tmp_path / "cache"))
    monkeypatch.setattr(Workspace, "here", lambda: workspace)
    monkeypatch.setattr(verify, "verify_all", lambda found: ([], []))
    return paths


def test_the_files_behind_one_that_fails_are_tested_too(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def boot(workspace: Workspace, path: Path, on_line: Callable[[str], None]) -> None:
        if path.suffix != ".ova":
            raise Failure(f"{path.name}: 1 test failed")

    monkeypatch.setattr(stage, "test", boot)
    with pytest.raises(SystemExit) as raised:
        building.boot_test(Context(), [str(path) for path in paths])
    assert raised.value.code == 1
    said = capsys.readouterr()
    assert f"{paths[1]}: passed; report: " in said.out
    assert said.err.splitlines() == ["./inv: a.zip: 1 test failed", "./inv: c.qcow2: 1 test failed"]


def test_a_mistake_of_the_user_hides_no_failure_before_it(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def boot(workspace: Workspace, path: Path, on_line: Callable[[str], None]) -> None:
        if path.suffix == ".ova":
            raise UserError("qemu-system-aarch64 is missing")
        raise Failure(f"{path.name}: 1 test failed")

    monkeypatch.setattr(stage, "test", boot)
    with pytest.raises(SystemExit) as raised:
        building.boot_test(Context(), [str(path) for path in paths])
    assert raised.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said == ["./inv: a.zip: 1 test failed", "./inv: qemu-system-aarch64 is missing"]
