"""The pipeline with several artifacts; the boot tests are stand-ins, as real ones need VMs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hyraxvm.config import images as config
from hyraxvm.config.model import FULL, SMOKE
from hyraxvm.core.cache import KEEP, StageCache
from hyraxvm.core.errors import Failure
from hyraxvm.core.progress import Progress
from hyraxvm.core.workspace import Workspace
from hyraxvm.formats import Format
from hyraxvm.stages import pipeline
from hyraxvm.stages.boot_test import stage as boot_test
from hyraxvm.stages.boot_test import verdict
from hyraxvm.stages.package import stage as package
from hyraxvm.stages.plan import Plan

WORKSPACE = Workspace(Path("root"), Path("artifacts"), StageCache(Path("cache")))
NAMES = ["a.qcow2", "a.zip", "b.ova", "b.zip", "b-hyperv.zip"]


def test_files_are_tested_side_by_side_and_one_failure_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[tuple[str, int]] = []
    together = threading.Barrier(2, timeout=10)

    def fake(
        workspace: Workspace, path: Path, on_line: object, machines: int, level: str
    ) -> dict[str, object]:
        begun.append((path.name, machines))
        if path.suffix == ".zip" and "hyperv" not in path.name:
            together.wait()
        if path.name in ("a.zip", "b.ova"):
            raise Failure(f"1 test of {path.name} failed")
        return {"key": path.name, "level": level}

    recorded: dict[str, str] = {}
    monkeypatch.setattr(package, "record_tests", lambda folder, passed: recorded.update(passed))
    monkeypatch.setattr(verdict, "read", lambda workspace, path, level: None)
    monkeypatch.setattr(boot_test, "test", fake)
    with pytest.raises(Failure) as raised:
        paths = [Path(name) for name in NAMES]
        pipeline._all_tested(WORKSPACE, paths, Progress(lambda line: None), SMOKE)
    assert str(raised.value).splitlines() == [
        "a.zip: 1 test of a.zip failed",
        "b.ova: 1 test of b.ova failed",
    ]
    assert sorted(begun) == sorted((name, 1) for name in NAMES)
    assert {name for name, _ in begun[:2]} == {"a.zip", "b.zip"}
    # Those that have passed are recorded all the same.
    assert recorded == dict.fromkeys(["a.qcow2", "b.zip", "b-hyperv.zip"], SMOKE)


def test_the_only_file_has_both_places_and_one_with_a_verdict_is_not_tested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[tuple[str, int]] = []

    def fake(
        workspace: Workspace, path: Path, on_line: object, machines: int, level: str
    ) -> dict[str, object]:
        begun.append((path.name, machines))
        return {"key": "new", "level": level}

    def read(workspace: Workspace, path: Path, level: str) -> dict[str, str] | None:
        return None if path.name == "b.zip" else {"key": "old", "level": FULL}

    recorded: dict[str, str] = {}
    monkeypatch.setattr(package, "record_tests", lambda folder, passed: recorded.update(passed))
    monkeypatch.setattr(verdict, "read", read)
    monkeypatch.setattr(boot_test, "test", fake)
    paths = [Path("a.zip"), Path("b.zip")]
    made = pipeline._all_tested(WORKSPACE, paths, Progress(lambda line: None), SMOKE)
    assert begun == [("b.zip", 2)]
    assert [(a.path.name, a.verdict) for a in made] == [
        ("a.zip", {"key": "old", "level": FULL}),
        ("b.zip", {"key": "new", "level": SMOKE}),
    ]
    assert recorded == {"a.zip": FULL, "b.zip": SMOKE}


def test_no_image_of_a_build_loses_what_it_is_made_of_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build has more images than the cache keeps results, and each needs its own to the end."""
    workspace = Workspace(tmp_path, tmp_path / "artifacts", StageCache(tmp_path / "cache"))
    images = KEEP + 2
    all_made = threading.Barrier(images, timeout=10)

    def fake(given: Workspace, plan: Plan, *rest: object) -> list[Path]:
        key = plan.recipe.name * 64
        master = given.cache.produce("s", key, lambda work: (work / "master").touch())
        all_made.wait()
        return [next(master.iterdir())]

    monkeypatch.setattr(pipeline, "_artifacts", fake)
    base = config.recipe(config.load(), "nfs", "dapdir")
    recipes = [base.model_copy(update={"name": "abcdefghij"[n]}) for n in range(images)]
    wanted: list[tuple[config.Recipe, list[Format]]] = [(each, []) for each in recipes]
    made = pipeline.build(workspace, wanted, Progress(lambda line: None), test=None)
    assert len(made) == images
