"""The stage cache: keys, whole results only, one maker at a time."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from hyraxvm.core import cache
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import UserError
from hyraxvm.core.workspace import Workspace, user_cache
from hyraxvm.publish import nightly
from hyraxvm.tools import clean


@pytest.fixture
def results(tmp_path: Path) -> StageCache:
    return StageCache(tmp_path / "cache")


def test_the_cache_is_where_the_user_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == Workspace.here().cache.folder == tmp_path / "hyrax-vm"
    monkeypatch.setenv("HOME", str(tmp_path))
    for ignored in ("relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert user_cache() == tmp_path / ".cache/hyrax-vm"


def test_a_digest_sees_content_name_and_mode(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("1")
    digests = [cache.digest(tmp_path)]
    file.write_text("2")
    digests.append(cache.digest(tmp_path))
    file.chmod(0o755)
    digests.append(cache.digest(tmp_path))
    file.rename(tmp_path / "b")
    digests.append(cache.digest(tmp_path))
    assert len(set(digests)) == 4
    assert cache.digest(tmp_path) == digests[-1]
    assert cache.digest("a", "b") != cache.digest("ab")


def test_a_result_is_made_once(results: StageCache) -> None:
    made = []

    def make(work: Path) -> None:
        made.append(work)
        (work / "out").write_text("x")

    for _ in range(2):
        assert (results.produce("s", "k" * 64, make) / "out").read_text() == "x"
    assert len(made) == 1
    assert results.contains("s", "k" * 64)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_stage_leaves_nothing(
    results: StageCache, error: type[BaseException]
) -> None:
    def make(work: Path) -> None:
        (work / "half").write_text("x")
        raise error

    with pytest.raises(error):
        results.produce("s", "k" * 64, make)
    assert [path.name for path in (results.folder / "stages/s").iterdir() if path.is_dir()] == []
    assert not results.contains("s", "k" * 64)


def test_what_a_killed_run_left_is_not_a_result(results: StageCache) -> None:
    left = results.folder / "stages/s" / f".{'k' * 24}.work"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    folder = results.produce("s", "k" * 64, lambda work: (work / "out").touch())
    assert [path.name for path in folder.iterdir()] == ["out"]


def test_old_results_go(results: StageCache) -> None:
    for number in range(cache.KEEP + 2):
        folder = results.produce("s", f"{number:064}"[::-1], lambda work: (work / "o").touch())
        os.utime(folder, (number, number))
    results.produce("s", "z" * 64, lambda work: (work / "o").touch())
    assert (
        len([path for path in (results.folder / "stages/s").iterdir() if path.is_dir()])
        == cache.KEEP
    )


def names(kept: StageCache) -> set[str]:
    return {path.name for path in (kept.folder / "stages/s").iterdir() if path.is_dir()}


def _use(kept: StageCache, begun: Event, done: Event) -> None:
    with kept.in_use():
        kept.produce("s", "u" * 64, lambda work: (work / "o").touch())
        begun.set()
        done.wait(30)


def make(kept: StageCache, number: int) -> str:
    return kept.produce("s", f"{number:064}"[::-1], lambda work: (work / "o").touch()).name


def test_what_another_process_uses_stays(results: StageCache) -> None:
    begun, done = multiprocessing.Event(), multiprocessing.Event()
    user = multiprocessing.Process(target=_use, args=(results, begun, done))
    user.start()
    try:
        assert begun.wait(10)
        os.utime(results.folder / "stages/s" / ("u" * 24), (1, 1))
        for number in range(cache.KEEP + 2):
            make(results, number)
        assert "u" * 24 in names(results)
        with pytest.raises(UserError, match=f"{'u' * 24}: a build uses it; wait for it, or end it"):
            results.clear()
        assert "u" * 24 in names(results)
    finally:
        done.set()
        user.join(10)
    make(results, 99)
    assert "u" * 24 not in names(results)
    assert results.clear() == [results.folder]
    assert results.clear() == []
    assert not results.folder.exists()


def test_what_this_process_uses_stays_as_long_as_it_does(results: StageCache) -> None:
    """One build has more images than the cache keeps results of a stage."""
    with results.in_use():
        wanted = {make(results, number) for number in range(cache.KEEP + 3)}
        assert names(results) == wanted
    make(results, 99)
    assert len(names(results)) == cache.KEEP


def test_what_is_being_made_stays(results: StageCache) -> None:
    """Another process has found the result, but has not begun to use it."""
    name = make(results, 1)
    os.utime(results.folder / "stages/s" / name, (1, 1))
    with cache.lock(results.folder / "stages/s" / f".{name}.lock"):
        for number in range(2, cache.KEEP + 4):
            make(results, number)
    assert name in names(results)


def _hold(path: Path, ready: Event, seconds: float) -> None:
    with cache.lock(path):
        ready.set()
        time.sleep(seconds)


def test_a_second_build_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    ready = multiprocessing.Event()
    holder = multiprocessing.Process(target=_hold, args=(path, ready, 30))
    holder.start()
    try:
        assert ready.wait(10)
        with pytest.raises(UserError, match="busy here"), cache.lock(path, "busy here"):
            pass
    finally:
        holder.kill()
        holder.join(10)
    with cache.lock(path, "busy here"):  # the holder was killed: the lock is free
        pass


@pytest.fixture
def workspace(tmp_path: Path, results: StageCache) -> Workspace:
    made = tmp_path / "artifacts"
    (made / "releases/20260102").mkdir(parents=True)
    for name in ("README.md", "nightly.md", ".lock", nightly.LOCK):
        (made / name).touch()
    return Workspace(tmp_path, made, results)


def test_cleaning_leaves_what_the_checkout_needs(workspace: Workspace) -> None:
    artifacts = workspace.artifacts
    locks = set(clean.USERS)
    assert {".lock", nightly.LOCK} < locks
    assert len(clean.clean(workspace, with_cache=False)) == 2
    (artifacts / "releases").mkdir()
    before = {name: (artifacts / name).stat().st_ino for name in locks}
    assert len(clean.clean(workspace, with_cache=False)) == 1
    assert {path.name for path in artifacts.iterdir()} == locks | {"README.md"}
    # A new file of that name would be another lock.
    assert {name: (artifacts / name).stat().st_ino for name in locks} == before
    make(workspace.cache, 1)
    assert clean.clean(workspace, with_cache=True) == [f"removed {workspace.cache.folder}"]
    assert clean.clean(workspace, with_cache=True) == ["nothing to remove"]


@pytest.mark.parametrize("lock", clean.USERS)
@pytest.mark.parametrize("shared", [True, False])
def test_nothing_is_cleaned_under_who_needs_it(
    workspace: Workspace, lock: str, shared: bool
) -> None:
    said = f"{clean.USERS[lock]} runs in this checkout; wait for it, or end it"
    with (
        cache.lock(workspace.artifacts / lock, shared=shared),
        pytest.raises(UserError, match=said),
    ):
        clean.clean(workspace, with_cache=True)
    assert (workspace.artifacts / "releases/20260102").is_dir()


def test_too_little_space_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(UserError, match=r"GB free, a build needs .* clean --cache"):
        cache.check_space(tmp_path)
