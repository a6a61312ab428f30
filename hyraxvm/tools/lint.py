"""The linters: the one list that `./inv lint` and the tests run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from hyraxvm.core.errors import Failure
from hyraxvm.core.paths import PROVISION, ROOT

_PYTHON: Final = (sys.executable, "-m")
_TREES: Final = (PROVISION / "build", PROVISION / "guest", PROVISION / "servers")
SHELL: Final = (b"#!/bin/sh\n", b"#! /bin/sh\n")

LINTERS: Final = {
    "ruff-check": (*_PYTHON, "ruff", "check", "--quiet", "."),
    "ruff-format": (*_PYTHON, "ruff", "format", "--quiet", "--check", "."),
    "mypy": (*_PYTHON, "mypy", "--no-error-summary"),
    # The layers of [tool.importlinter] in pyproject.toml.
    "import-linter": (str(Path(sys.executable).with_name("lint-imports")), "--no-logo"),
    "codespell": (*_PYTHON, "codespell_lib"),
}


def shell_scripts() -> list[Path]:
    """Return the shell scripts of the checkout; templates of scripts have their own tests."""
    scripts = [ROOT / "inv", ROOT / ".ci" / "run"]
    for tree in _TREES:
        for path in sorted(tree.rglob("*")):
            if path.is_file() and (path.suffix == ".sh" or _is_shell(path)):
                scripts.append(path)
    return scripts


def _is_shell(path: Path) -> bool:
    with path.open("rb") as stream:
        return path.suffix != ".j2" and stream.readline(20) in SHELL


def commands() -> dict[str, tuple[str, ...]]:
    """Return name -> command line of each linter, to be run in the checkout."""
    scripts = [str(path.relative_to(ROOT)) for path in shell_scripts()]
    return {**LINTERS, "shellcheck": ("shellcheck", "-x", "-P", "SCRIPTDIR", *scripts)}


def lint() -> None:
    """Run every linter with its output on the terminal.

    Raises `Failure` that names the linters that found something.
    """
    complaints = []
    for name, argv in commands().items():
        print(f"{name} ...", flush=True)
        if subprocess.run(argv, cwd=ROOT, check=False).returncode != 0:
            complaints.append(name)
    if complaints:
        raise Failure(f"lint: {', '.join(complaints)}: see above")
