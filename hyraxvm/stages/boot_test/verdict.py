"""The verdict of a boot test: which of the two it is, where it is kept, how long it counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hyraxvm.config.model import FULL, LEVELS, SMOKE
from hyraxvm.core import cache, code
from hyraxvm.core.paths import PROVISION, ROOT
from hyraxvm.core.workspace import Workspace
from hyraxvm.formats import format_of

TESTS = ROOT / "tests" / "boot"
STAGE = "hyraxvm.stages.boot_test.stage"
FILE = "verdict.json"
# What each has tested, for people.
TESTED = {
    SMOKE: "smoke boot passed: it starts, serves a right value, is the version that it says it is, "
    "and powers off; not tested: file servers, clients, network, SSH, restarts, copies",
    FULL: "boot test passed: the whole contract",
}


def reports(workspace: Workspace, artifact: Path) -> Path:
    """Return the folder of an artifact's console, journal, JUnit and HTML reports."""
    return workspace.reports / artifact.name


def key(artifact: Path) -> str:
    """Return the digest of what decides the verdict: the artifact, the tests, the expectations."""
    claims = sorted((PROVISION / "servers").glob("*/capabilities.toml"))
    return cache.digest(cache.file_digest(artifact), *claims, code.digest(ROOT, TESTS, STAGE))


def expected_seconds(workspace: Workspace, artifact: Path, level: str) -> float:
    """Return how long the last test of a file of that name took, or else a guess."""
    found = _read(workspace, artifact)
    if found and found.get("level") == level:
        return float(found["seconds"])
    return 1000.0 if format_of(artifact).whole_contract else 100.0


def read(workspace: Workspace, artifact: Path, level: str = FULL) -> dict[str, Any] | None:
    """Return the verdict of an earlier test if it still counts, or None: test the file again.

    `level` is the least that counts: the whole contract is more than a smoke boot.
    """
    found = _read(workspace, artifact)
    enough = found and LEVELS.index(found["level"]) >= LEVELS.index(level)
    return found if found and enough and found.get("key") == key(artifact) else None


def _read(workspace: Workspace, artifact: Path) -> dict[str, Any] | None:
    """Return the last verdict, whether it still counts or not; None if there is none."""
    try:
        found: dict[str, Any] = json.loads((reports(workspace, artifact) / FILE).read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and found.get("level") in LEVELS and "seconds" in found
    return found if whole else None
