"""The stage cache: keys, whole results only, one maker at a time."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from hyraxvm.core import cache
from hyraxvm.core.errors import UserError
from hyraxvm.publish import nightly
from hyraxvm.tools import clean


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


def results(root: Path) -> set[str]:
    return {path.name for path in (root / "stages/s").iterdir() if path.is_dir()}


def _use(begun: Event, done: Event) -> None:
    with cache.in_use():
        cache.produce("s", "u" * 64, lambda work: (work / "o").touch())
        begun.set()
        done.wait(30)


def make(number: int) -> str:
    return cache.produce("s", f"{number:064}"[::-1], lambda work: (work / "o").touch()).name


def test_what_another_process_uses_stays(own_cache: Path) -> None:
    begun, done = multiprocessing.Event(), multiprocessing.Event()
    user = multiprocessing.Process(target=_use, args=(begun, done))
    user.start()
    try:
        assert begun.wait(10)
        os.utime(own_cache / "stages/s" / ("u" * 24), (1, 1))
        for number in range(cache.KEEP + 2):
            make(number)
        assert "u" * 24 in results(own_cache)
        with pytest.raises(UserError, match=f"{'u' * 24}: a build uses it; wait for it, or end it"):
            cache.clear()
        assert "u" * 24 in results(own_cache)
    finally:
        done.set()
        user.join(10)
    make(99)
    assert "u" * 24 not in results(own_cache)
    assert cache.clear() == [own_cache]
    assert cache.clear() == []
    assert not own_cache.exists()


def test_what_this_process_uses_stays_as_long_as_it_does(own_cache: Path) -> None:
    """A build of more images than results are kept."""
    with cache.in_use():
        wanted = {make(number) for number in range(cache.KEEP + 3)}
        assert results(own_cache) == wanted
    make(99)
    assert len(results(own_cache)) == cache.KEEP


def test_what_is_being_made_stays(own_cache: Path) -> None:
    """Another process has found it there, and not yet begun to use it."""
    name = make(1)
    os.utime(own_cache / "stages/s" / name, (1, 1))
    with cache.lock(own_cache / "stages/s" / f".{name}.lock"):
        for number in range(2, cache.KEEP + 4):
            make(number)
    assert name in results(own_cache)


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
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`artifacts/` elsewhere."""
    made = tmp_path / "artifacts"
    monkeypatch.setattr(clean, "ARTIFACTS", made)
    monkeypatch.setattr(nightly, "LOCK", made / nightly.LOCK.name)
    (made / "releases/20260102").mkdir(parents=True)
    for name in ("README.md", "nightly.md", ".lock", nightly.LOCK.name):
        (made / name).touch()
    return made


def test_cleaning_leaves_what_the_checkout_needs(checkout: Path, own_cache: Path) -> None:
    locks = set(clean.USERS)
    assert {".lock", nightly.LOCK.name} < locks
    assert len(clean.clean(with_cache=False)) == 2
    (checkout / "releases").mkdir()
    before = {name: (checkout / name).stat().st_ino for name in locks}
    assert len(clean.clean(with_cache=False)) == 1
    assert {path.name for path in checkout.iterdir()} == locks | {"README.md"}
    # Another file of that name would be another lock.
    assert {name: (checkout / name).stat().st_ino for name in locks} == before
    make(1)
    assert clean.clean(with_cache=True) == [f"removed {own_cache}"]
    assert clean.clean(with_cache=True) == ["nothing to remove"]


@pytest.mark.parametrize("lock", clean.USERS)
@pytest.mark.parametrize("shared", [True, False])
def test_nothing_is_cleaned_under_who_needs_it(checkout: Path, lock: str, shared: bool) -> None:
    said = f"{clean.USERS[lock]} runs in this checkout; wait for it, or end it"
    with cache.lock(checkout / lock, shared=shared), pytest.raises(UserError, match=said):
        clean.clean(with_cache=True)
    assert (checkout / "releases/20260102").is_dir()


def test_too_little_space_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(UserError, match=r"GB free, a build needs .* clean --cache"):
        cache.check_space(tmp_path)
