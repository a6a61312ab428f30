"""The stage cache: an output is kept under a digest of exactly the inputs that made it.

A stage writes into a new directory, which gets its final name when the stage is done.  So the
remains of an interrupted run never look like a result.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.process import as_root, output

KEEP = 4  # most recently used results of one stage, which are kept
NEEDED_BYTES = 8 * 1024**3  # more than a build with empty caches writes


class Remote(Protocol):
    """A store of results that machines share.  Its methods never raise: a fault is a miss."""

    def fetch(self, stage: str, key: str, work: Path, spare: Path) -> bool:
        """Fill the empty folder `work` with an output, using the empty folder `spare`.

        Return whether there is one.
        """

    def keep(self, stage: str, key: str, made: Path, spare: Path) -> None:
        """Store the output in `made` for other machines, using the empty folder `spare`."""


class StageCache:
    """The results of the stages on this machine, in `folder`.

    `remote` has results of other machines.  It is asked before a stage runs here, and gets the
    results of this machine; see `hyraxvm/store/stage_cache.py`.
    """

    def __init__(self, folder: Path, remote: Remote | None = None) -> None:
        """Use `folder`, which need not exist yet."""
        self.folder = folder
        self.remote = remote
        self._users: list[ExitStack] = []  # the locks that each `in_use` holds

    def produce(
        self, stage: str, key: str, make: Callable[[Path], None], *, local: bool = False
    ) -> Path:
        """Return the directory that holds a stage's output; `make` fills it if it is missing.

        Unless `local` is true, an output of `remote` is taken if there is one.  If another process
        makes the same output, wait for it.

        Raises what `make` raises; then nothing is kept.
        """
        final = self._result(stage, key)
        folder = final.parent
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / f".{final.name}.lock"):
            work, spare = folder / f".{final.name}.work", folder / f".{final.name}.spare"
            others = None if local else self.remote
            try:
                if final.is_dir():
                    pass
                elif others and others.fetch(stage, key, _fresh(work), _fresh(spare)):
                    work.rename(final)
                else:
                    make(_fresh(work))
                    work.rename(final)
                    if others:
                        others.keep(stage, key, final, _fresh(spare))
            finally:
                remove_tree(work)
                remove_tree(spare)
            os.utime(final)
            for held in self._users:
                held.enter_context(lock(folder / f".{final.name}.use", shared=True))
        _prune(folder, final)
        return final

    def contains(self, stage: str, key: str) -> bool:
        """Return whether this machine has the output, so that `produce` returns at once."""
        return self._result(stage, key).is_dir()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep every result that `produce` returns inside this block until the block ends.

        Without it, the next result of the same stage may remove one that is still needed, in this
        process or in another.
        """
        with ExitStack() as held:
            self._users.append(held)
            try:
                yield
            finally:
                self._users.remove(held)

    def clear(self) -> list[Path]:
        """Remove the whole cache; return its path in a list, which is empty if there was none.

        Raises `UserError`: a build uses the cache.
        """
        if not self.folder.exists():
            return []
        with ExitStack() as held:
            for folder in (self.folder / "stages").glob("*"):
                for result in {entry.name.strip(".")[:24] for entry in folder.iterdir()}:
                    held.enter_context(_unused(folder / result))
            remove_tree(self.folder)
        return [self.folder]

    def _result(self, stage: str, key: str) -> Path:
        return self.folder / "stages" / stage / key[:24]


def digest(*inputs: Any) -> str:
    """Return a SHA-256 over JSON values and files, in hexadecimal.

    A `Path` counts with its name, mode and content; a folder, with all files and links below it.
    The order of the arguments matters.
    """
    total = hashlib.sha256()
    for item in inputs:
        if isinstance(item, Path):
            for name, mode, content in _files(item):
                total.update(json.dumps([name, mode, content]).encode())
        else:
            total.update(json.dumps(item, sort_keys=True).encode())
        total.update(b"\0")
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(path: Path) -> Iterator[tuple[str, int, str]]:
    """Yield name, mode, and digest or link target of a file, or of everything below a folder."""
    if path.is_dir():
        for entry in sorted(path.rglob("*")):
            if entry.name == "__pycache__" or "__pycache__" in entry.parts:
                continue
            name = str(entry.relative_to(path))
            if entry.is_symlink():
                yield name, 0, str(entry.readlink())
            elif entry.is_file():
                yield name, entry.stat().st_mode & 0o777, file_digest(entry)
    else:
        yield path.name, path.stat().st_mode & 0o777, file_digest(path)


def _fresh(folder: Path) -> Path:
    """Return `folder`, made empty: a killed run or a failed try may have left something in it."""
    remove_tree(folder)
    folder.mkdir()
    return folder


@contextmanager
def lock(path: Path, busy: str | None = None, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on the file `path`; the kernel releases it even if this process is killed.

    With `busy`, do not wait: raise `UserError(busy)` if the lock is held elsewhere.  Any number of
    holders may have a `shared` lock at the same time.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (fcntl.LOCK_NB if busy else 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, how)
        except BlockingIOError as error:
            raise UserError(busy or "") from error
        yield


def check_space(*folders: Path) -> None:
    """Raise `UserError` if a folder's file system has too little space for a build."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < NEEDED_BYTES:
            raise UserError(
                f"{folder}: {free / 1e9:.1f} GB free, a build needs {NEEDED_BYTES / 1e9:.1f} GB; "
                "free some space (`./inv clean --cache` empties this project's cache)"
            )


def remove_tree(path: Path) -> None:
    """Remove a tree, even if its files belong to other ids of this user's namespace.

    Raises `Failure`: it cannot be removed.
    """
    if not path.exists():
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        output(as_root(["rm", "-rf", "--one-file-system", "--", str(path)]), deadline=300)
    if path.exists():
        raise Failure(f"{path}: cannot be removed")


@contextmanager
def _unused(result: Path) -> Iterator[None]:
    """Keep others from making or using a result; raise `UserError` if they do already."""
    busy = f"{result}: a build uses it; wait for it, or end it"
    # The lock of `produce` first: `produce` holds it until it has the lock of the use.
    with (
        lock(result.with_name(f".{result.name}.lock"), busy),
        lock(result.with_name(f".{result.name}.use"), busy),
    ):
        yield


def _prune(folder: Path, keep: Path) -> None:
    """Remove old results of a stage that nobody uses; never `keep`."""
    results = sorted(
        (entry for entry in folder.iterdir() if not entry.name.startswith(".")),
        key=lambda entry: entry.stat().st_mtime,
        reverse=True,
    )
    for old in results[KEEP:]:
        if old != keep:
            with suppress(UserError), _unused(old):
                remove_tree(old)
