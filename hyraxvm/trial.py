"""`./inv run`: a built artifact, booted for a person."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from hyraxvm.machine import interactive
from hyraxvm.qemu import MachineSpec
from hyraxvm.vmx import read_vmx


def interactive_zip(artifact: Path) -> int:
    """Unpack an artifact of this pipeline and run it on the terminal; returns QEMU's status."""
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-run-") as scratch:
        with zipfile.ZipFile(artifact) as archive:
            archive.extractall(scratch)
        folder = Path(scratch) / artifact.stem
        vmx = read_vmx(folder / f"{artifact.stem}.vmx")
        return interactive(MachineSpec.from_vmx(vmx, folder))
