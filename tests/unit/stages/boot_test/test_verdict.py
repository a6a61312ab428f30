"""How long a verdict counts, and for how much."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hyraxvm.config.model import FULL, SMOKE
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure
from hyraxvm.core.workspace import Workspace
from hyraxvm.formats.opening import manifest_path
from hyraxvm.stages.boot_test import stage as boot_test
from hyraxvm.stages.boot_test import verdict


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, tmp_path / "artifacts", StageCache(tmp_path / "cache"))


def leave(workspace: Workspace, artifact: Path, text: str) -> None:
    folder = verdict.reports(workspace, artifact)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / verdict.FILE).write_text(text)


def test_the_whole_contract_counts_as_a_smoke_boot_and_not_the_reverse(
    workspace: Workspace, tmp_path: Path
) -> None:
    artifact = tmp_path / "x.zip"
    artifact.write_bytes(b"an artifact")
    key = verdict.key(artifact)
    for level, counts in ((SMOKE, {SMOKE}), (FULL, {SMOKE, FULL})):
        leave(workspace, artifact, json.dumps({"key": key, "level": level}))
        assert {one for one in (SMOKE, FULL) if verdict.read(workspace, artifact, one)} == counts
    artifact.write_bytes(b"another artifact")
    assert verdict.read(workspace, artifact, SMOKE) is None


@pytest.mark.parametrize("skipped", [0, 1])
def test_a_skipped_boot_test_gives_no_verdict(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skipped: int
) -> None:
    artifact = tmp_path / "x.qcow2"
    artifact.write_bytes(b"an artifact")
    manifest_path(artifact).write_text("{}")

    def pytest_ends(argv: list[str], **more: object) -> None:
        (junit,) = [word.partition("=")[2] for word in argv if word.startswith("--junitxml=")]
        Path(junit).write_text(f'<testsuites><testsuite skipped="{skipped}"/></testsuites>')

    monkeypatch.setattr(boot_test, "run", pytest_ends)
    if not skipped:
        assert boot_test.test(workspace, artifact, print)["level"] == FULL
        assert verdict.read(workspace, artifact, FULL)
        return
    leave(workspace, artifact, json.dumps({"key": verdict.key(artifact), "level": FULL}))
    with pytest.raises(Failure, match="1 tests were skipped, which counts as failed"):
        boot_test.test(workspace, artifact, print)
    assert verdict.read(workspace, artifact, SMOKE) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"key": "k"}', '{"key": "k", "level": "half"}']
)
def test_what_is_no_verdict_is_none(workspace: Workspace, tmp_path: Path, text: str) -> None:
    artifact = tmp_path / "x.zip"
    artifact.write_bytes(b"an artifact")
    assert verdict.read(workspace, artifact, SMOKE) is None
    leave(workspace, artifact, text)
    assert verdict.read(workspace, artifact, SMOKE) is None
