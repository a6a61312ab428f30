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


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A file with its manifest."""
    artifact = tmp_path / "x.zip"
    artifact.write_bytes(b"an artifact")
    manifest_path(artifact).write_text("{}")
    return artifact


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
        leave(workspace, artifact, json.dumps({"key": key, "level": level, "seconds": 90}))
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
        machine = verdict.reports(workspace, artifact) / "wires-3"  # of an earlier run
        machine.mkdir(parents=True)
        assert boot_test.test(workspace, artifact, print)["level"] == FULL
        assert not machine.exists()
        assert verdict.read(workspace, artifact, FULL)
        return
    leave(workspace, artifact, json.dumps({"key": verdict.key(artifact), "level": FULL}))
    with pytest.raises(Failure, match="1 tests were skipped, which counts as failed"):
        boot_test.test(workspace, artifact, print)
    assert verdict.read(workspace, artifact, SMOKE) is None


def test_a_failed_run_names_each_test_its_machine_and_its_reason(
    workspace: Workspace, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pytest_fails(argv: list[str], **more: object) -> None:
        (junit,) = [word.partition("=")[2] for word in argv if word.startswith("--junitxml=")]
        Path(junit).write_text(
            "<testsuites><testsuite>"
            '<testcase name="test_a[x.zip@first]@x.zip@first"/>'
            '<testcase name="test_b[x.zip@second-nc-a/b.nc]@x.zip@second">'
            '<failure message="wrong&#10;value"/></testcase>'
            '<testcase name="test_c[x.zip@first]@x.zip@first"><error message="no VM"/></testcase>'
            "</testsuite></testsuites>"
        )
        raise Failure("pytest: exit status 1")

    monkeypatch.setattr(boot_test, "run", pytest_fails)
    with pytest.raises(Failure) as caught:
        boot_test.test(workspace, shipped, print)
    assert str(caught.value).splitlines() == [
        f"x.zip: 2 tests failed; report: {verdict.reports(workspace, shipped)}",
        "    on second: test_b [nc-a/b.nc]: wrong",
        "    on first: test_c: no VM",
    ]


def test_what_stops_pytest_itself_is_shown(
    workspace: Workspace, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = verdict.reports(workspace, shipped) / "junit.xml"
    old.parent.mkdir(parents=True)
    old.write_text("<testsuites/>")

    def no_pytest(argv: list[str], **more: object) -> None:
        raise Failure("pytest: exit status 4")

    monkeypatch.setattr(boot_test, "run", no_pytest)
    with pytest.raises(Failure, match="exit status 4"):
        boot_test.test(workspace, shipped, print)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"key": "k"}', '{"key": "k", "level": "half"}']
)
def test_what_is_no_verdict_is_none(workspace: Workspace, tmp_path: Path, text: str) -> None:
    artifact = tmp_path / "x.zip"
    artifact.write_bytes(b"an artifact")
    assert verdict.read(workspace, artifact, SMOKE) is None
    leave(workspace, artifact, text)
    assert verdict.read(workspace, artifact, SMOKE) is None


def test_a_test_is_expected_to_take_as_long_as_the_last_of_its_kind(
    workspace: Workspace, tmp_path: Path
) -> None:
    whole, brief = tmp_path / "x.zip", tmp_path / "x.ova"
    guess = verdict.expected_seconds(workspace, whole, FULL)
    assert guess > verdict.expected_seconds(workspace, brief, FULL)
    for text in ("{", '{"level": "full"}'):
        leave(workspace, whole, text)
        assert verdict.expected_seconds(workspace, whole, FULL) == guess
    # The key of an older file: the verdict does not count any more, its time does.
    leave(workspace, whole, json.dumps({"key": "old", "level": FULL, "seconds": 90.5}))
    assert verdict.expected_seconds(workspace, whole, FULL) == 90.5
    assert verdict.expected_seconds(workspace, whole, SMOKE) == guess
