"""Where things lie: in the checkout, and in the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "artifacts"
LOGS = ARTIFACTS / "logs"
REPORTS = ARTIFACTS / "reports"
RENDERED = ARTIFACTS / "rendered"
PACKER = ROOT / "packer"
PROVISION = ROOT / "provision"
TEMPLATES = ROOT / "templates"
IMAGES_TOML = ROOT / "images.toml"
IMAGES_LOCK = ROOT / "images.lock"


def cache_root() -> Path:
    """The cache's directory, by the XDG Base Directory Specification."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The specification: a relative path in the variable is to be ignored.
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
    return base / "hyrax-vm"
