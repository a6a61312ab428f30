"""The code that decides an output: modules, and every module of the project that they import.

It is found by reading the import statements, so that an edit of any module that a stage uses gives
the stage another key.  A list that is kept by hand is wrong as soon as somebody forgets a line.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("hyraxvm", "tests")  # whose modules are code of this project


class Closure(NamedTuple):
    """The files of a closure, and the third-party distributions that they import, both sorted."""

    files: tuple[Path, ...]
    distributions: tuple[str, ...]


def digest(root: Path, *starts: str | Path) -> str:
    """Return a SHA-256 over the code in the closure of `starts`, in hexadecimal.

    It covers the path below `root` and the content of each file, and the version of each
    third-party distribution.  Comments count too: nothing has to decide which edits are harmless.
    """
    found = closure(root, *starts)
    content = {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found.files
    }
    versions = {name: version(name) for name in found.distributions}
    return hashlib.sha256(json.dumps([content, versions]).encode()).hexdigest()


def closure(root: Path, *starts: str | Path) -> Closure:
    """Follow the imports of `starts` through the checkout at `root`.

    A start is the name of a module, a Python file, or a folder that stands for every Python file
    below it.  Imports inside functions count.  Raises `FileNotFoundError`: a start does not exist.
    """
    files: set[Path] = set()
    foreign: set[str] = set()
    todo = [path for start in starts for path in _files(root, start)]
    while todo:
        path = todo.pop()
        if path in files:
            continue
        files.add(path)
        for name in _imports(path.read_bytes(), _package(root, path)):
            top = name.partition(".")[0]
            if top in PACKAGES:
                todo += _modules(root, name)
            elif top not in sys.stdlib_module_names:
                foreign.add(top)
    known = _distributions()
    return Closure(
        tuple(sorted(files)),
        tuple(sorted({name for top in foreign for name in known.get(top, ())})),
    )


def _files(root: Path, start: str | Path) -> list[Path]:
    if isinstance(start, str):
        last = root.joinpath(*start.split("."))
        wanted = {last.with_suffix(".py"), last / "__init__.py"}
        found = _modules(root, start) if wanted & {*_modules(root, start)} else []
    elif start.is_dir():
        found = sorted(start.rglob("*.py"))
    else:
        found = [start] if start.is_file() else []
    if not found:
        raise FileNotFoundError(f"{start}: no such code in {root}")
    return found


@cache
def _modules(root: Path, name: str) -> list[Path]:
    """Return the files that importing the module `name` runs: its packages, and its own.

    The last part of a name may be something inside a module instead; then it adds no file.
    Answers are cached: no module appears while a process runs.
    """
    parts = name.split(".")
    found = [root.joinpath(*parts[:count], "__init__.py") for count in range(1, len(parts) + 1)]
    found.append(root.joinpath(*parts).with_suffix(".py"))
    return [path for path in found if path.is_file()]


def _package(root: Path, path: Path) -> str:
    """Return the dotted name of the package that a file belongs to, for its relative imports."""
    return ".".join(path.parent.relative_to(root).parts)


@cache
def _imports(source: bytes, package: str) -> tuple[str, ...]:
    """Return the dotted names that a module imports; for `from a import b`, both a and a.b."""
    return tuple(sorted(set(_imported(ast.parse(source), package))))


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def version(distribution: str) -> str:
    """Return the version of an installed distribution; none changes while a process runs."""
    return metadata.version(distribution)


@cache
def _distributions() -> dict[str, list[str]]:
    """Return top-level module -> the installed distributions that have it."""
    return {top: list(names) for top, names in metadata.packages_distributions().items()}
