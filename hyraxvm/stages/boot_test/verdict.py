"""The verdict of a boot test: where it is kept, and for how long it counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hyraxvm.core import cache, code
from hyraxvm.core.paths import PROVISION, ROOT
from hyraxvm.core.workspace import Workspace

TESTS = ROOT / "tests" / "boot"
STAGE = "hyraxvm.stages.boot_test.stage"
FILE = "verdict.json"


def reports(workspace: Workspace, artifact: Path) -> Path:
    """Return the folder of an artifact's console, journal, JUnit and HTML reports."""
    return workspace.reports / artifact.name


def key(artifact: Path) -> str:
    """Return the digest of what decides the verdict: the artifact, the tests, the expectations."""
    claims = sorted((PROVISION / "servers").glob("*/capabilities.toml"))
    return cache.digest(cache.file_digest(artifact), *claims, code.digest(ROOT, TESTS, STAGE))


def read(workspace: Workspace, artifact: Path) -> dict[str, Any] | None:
    """Return the verdict of an earlier test if it still counts, or None: test the file again."""
    try:
        found: dict[str, Any] = json.loads((reports(workspace, artifact) / FILE).read_text())
    except (OSError, ValueError):
        return None
    return found if found.get("key") == key(artifact) else None
