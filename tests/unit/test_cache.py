"""The stage cache: keys, whole results only, one maker at a time."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from hyraxvm import cache, config, disk, package, provision, rootfs, server
from hyraxvm.errors import UserError
from hyraxvm.formats import FORMATS, Source


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "hyrax-vm"


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


def test_a_result_is_made_once(own_cache: Path) -> None:
    made = []

    def make(work: Path) -> None:
        made.append(work)
        (work / "out").write_text("x")

    for _ in range(2):
        assert (cache.produce("s", "k" * 64, make) / "out").read_text() == "x"
    assert len(made) == 1
    assert cache.contains("s", "k" * 64)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_stage_leaves_nothing(own_cache: Path, error: type[BaseException]) -> None:
    def make(work: Path) -> None:
        (work / "half").write_text("x")
        raise error

    with pytest.raises(error):
        cache.produce("s", "k" * 64, make)
    assert [path.name for path in (own_cache / "stages/s").iterdir() if path.is_dir()] == []
    assert not cache.contains("s", "k" * 64)


def test_what_a_killed_run_left_is_not_a_result(own_cache: Path) -> None:
    left = own_cache / "stages/s" / f".{'k' * 24}.work"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    folder = cache.produce("s", "k" * 64, lambda work: (work / "out").touch())
    assert [path.name for path in folder.iterdir()] == ["out"]


def test_old_results_go(own_cache: Path) -> None:
    for number in range(cache.KEEP + 2):
        folder = cache.produce("s", f"{number:064}"[::-1], lambda work: (work / "o").touch())
        os.utime(folder, (number, number))
    cache.produce("s", "z" * 64, lambda work: (work / "o").touch())
    assert len([path for path in (own_cache / "stages/s").iterdir() if path.is_dir()]) == cache.KEEP


def _hold(path: Path, ready: object, seconds: float) -> None:
    with cache.lock(path):
        ready.set()  # type: ignore[attr-defined]
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


def test_too_little_space_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(UserError, match=r"GB free, a build needs .* clean --cache"):
        cache.check_space(tmp_path)


def test_each_stage_depends_on_its_inputs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    table = config.load()
    recipe = config.recipe(table, "nfs")
    image = server.preview(recipe)

    def keys(chosen: config.Recipe, refresh: str = "") -> list[str]:
        first, second = rootfs.key(chosen, refresh), server.key(chosen, refresh)
        third = disk.key(chosen, first, second)
        fourth = provision.key(chosen, third, image)
        source = Source(chosen, image, Path("master.qcow2"), fourth, {})
        return [first, second, third, fourth, package.key(source, FORMATS["ova"])]

    def changed(chosen: config.Recipe, refresh: str = "") -> list[bool]:
        return [a != b for a, b in zip(keys(recipe), keys(chosen, refresh), strict=True)]

    assert changed(recipe) == [False] * 5
    assert changed(recipe, refresh="2026-01-01") == [True] * 5
    more = recipe.access.model_copy(update={"packages": ["nfs-common", "tcpdump"]})
    assert changed(recipe.model_copy(update={"access": more})) == [True, False, True, True, True]
    memory = recipe.machine.model_copy(update={"memory_mib": 2048})
    assert changed(recipe.model_copy(update={"machine": memory})) == [
        False,
        False,
        False,
        True,
        True,
    ]
    budget = recipe.budget.model_copy(update={"ova": 1})
    assert changed(recipe.model_copy(update={"budget": budget})) == [False] * 5
