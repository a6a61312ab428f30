"""`./inv run`: boot a built artifact for a person."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hyraxvm.formats.opening import open_artifact
from hyraxvm.vm.machine import interactive


def interactive_artifact(artifact: Path) -> int:
    """Unpack an artifact and run it on the terminal; return QEMU's exit status."""
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-run-") as scratch:
        return interactive(open_artifact(artifact, Path(scratch)).spec)
