"""The folders of a run: the checkout, the outputs in it, and the cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hyraxvm.core.cache import StageCache
from hyraxvm.core.paths import ROOT


@dataclass(frozen=True)
class Workspace:
    """The checkout, the folder for outputs, and the cache of stages.

    A task makes one and passes it on, so that no module has folders of its own.
    """

    root: Path
    artifacts: Path
    cache: StageCache

    @classmethod
    def here(cls) -> Workspace:
        """Return the usual workspace: this checkout, its `artifacts/`, and the user's cache."""
        return cls(ROOT, ROOT / "artifacts", StageCache(user_cache()))

    @property
    def logs(self) -> Path:
        """The logs of the stages."""
        return self.artifacts / "logs"

    @property
    def reports(self) -> Path:
        """The reports of tests."""
        return self.artifacts / "reports"

    @property
    def rendered(self) -> Path:
        """What `./inv render` writes."""
        return self.artifacts / "rendered"

    @property
    def releases(self) -> Path:
        """Signed releases, a folder for each version."""
        return self.artifacts / "releases"

    @property
    def downloads(self) -> Path:
        """What `./inv download` gets, unless the command names another folder."""
        return self.artifacts / "downloads"


def user_cache() -> Path:
    """Return the folder of the user's cache, by the XDG Base Directory Specification."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says to ignore a relative path in the variable.
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
    return base / "hyrax-vm"
