"""Whether what a base leaves out is really out of a root file system, and nothing left needs it.

dpkg compares its path-excludes with the paths that a package has.  They can differ from where the
files land: `/lib` is `/usr/lib` in a system with a merged /usr.
"""

from __future__ import annotations

import fnmatch
import re
import tarfile
from pathlib import Path
from typing import Final

from hyraxvm.config.images import Recipe
from hyraxvm.core.errors import Failure
from hyraxvm.core.process import output

MODULES: Final = "usr/lib/modules"
SHOWN: Final = 5  # faults in a message
_MODULE: Final = re.compile(r"\.ko(\.(gz|xz|zst))?$")


def check(recipe: Recipe, tar: Path, scratch: Path) -> None:
    """Raise `Failure` if an excluded file is in the tar, or a module needs an excluded one.

    `scratch` is a folder for the modules; it need not exist, and is not removed.
    """
    files, modules = [], []
    with tarfile.open(tar) as archive:
        for entry in archive:
            path = entry.name.removeprefix(".")
            if entry.isreg() and is_missed(path, recipe.path_excludes):
                files.append(path)
            if entry.isreg() and _MODULE.search(path):
                modules.append(entry.name)
    table = f"images.toml: base.{recipe.base_name}"
    if files:
        raise Failure(
            f"{table}: path_excludes has no effect on {_some(files)}: a package has them under "
            "another path; add it (`dpkg -L PACKAGE` shows it)"
        )
    if modules:
        scratch.mkdir(exist_ok=True)
        output(["tar", "-xf", str(tar), "-C", str(scratch), f"./{MODULES}"])
        if needs := broken([scratch / name for name in modules]):
            raise Failure(
                f"{table}: module_excludes leaves out what other modules need: {_some(needs)}; "
                'leave both out, or bring the second one back with "!"'
            )


def is_missed(path: str, rules: list[str]) -> bool:
    """Return whether dpkg leaves out a file with one of the names of `path`, and not the other.

    What is left out by all its names and is there nevertheless was made by a package's script.
    """
    if not re.match(r"/usr/(bin|lib|lib32|lib64|libx32|sbin)/", path):
        return False
    return is_excluded(path, rules) != is_excluded(path.removeprefix("/usr"), rules)


def is_excluded(path: str, rules: list[str]) -> bool:
    """Return whether dpkg leaves out a file of this name.

    As in dpkg(1), `*` also matches a slash, and the last rule that fits wins.
    """
    fitting = [rule for rule in rules if fnmatch.fnmatchcase(path, rule.removeprefix("!"))]
    return bool(fitting) and not fitting[-1].startswith("!")


def broken(modules: list[Path]) -> list[str]:
    """Return "MODULE needs MODULE" for each kernel module that is needed and not in the list."""
    argv = ["modinfo", "--field", "depends", *map(str, modules)]
    needed = output(argv).splitlines()
    there = {_name(path.name) for path in modules}
    return [
        f"{_name(path.name)} needs {name}"
        for path, names in zip(modules, needed, strict=True)
        for name in map(_name, filter(None, names.split(",")))
        if name not in there
    ]


def _name(file: str) -> str:
    """Return a module's name: in it `-` and `_` are the same."""
    return _MODULE.sub("", file).replace("-", "_")


def _some(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(sorted(items)[:SHOWN]) + more
