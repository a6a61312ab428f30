"""Open a shipped file, trusting nothing in it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ValidationError

from hyraxvm.config.arch import ARCHES, DEFAULT, Arch, ArchName
from hyraxvm.config.names import MANIFEST
from hyraxvm.core.errors import UserError
from hyraxvm.formats import Format, format_of, image_name
from hyraxvm.vm.qemu import MachineSpec


class _Sizes(BaseModel):
    """The sizes of the machine in a manifest, for a format that has no descriptor."""

    cpus: int
    memory_mib: int


class _Release(BaseModel):
    """The variable of the guest's version file, in a manifest, that decides which CPU boots it."""

    ARCH: ArchName


class _Manifest(BaseModel):
    machine: _Sizes
    release: _Release


@dataclass(frozen=True)
class Opened:
    """An artifact that was unpacked to `folder`, its format, and the machines that can boot it.

    `specs` is name -> machine; the first is the one that a user of the format most likely has.
    """

    format: Format
    specs: dict[str, MachineSpec]
    folder: Path

    @property
    def spec(self) -> MachineSpec:
        """The first machine."""
        return next(iter(self.specs.values()))


def open_artifact(artifact: Path, into: Path) -> Opened:
    """Verify `artifact` and unpack it into the existing directory `into`.

    The manifest beside the file says which architecture the machines have, and, for a format
    without a descriptor, how much memory and how many CPUs.  Without a manifest the architecture
    is the one that the file's name ends with, and the sizes are the defaults of `MachineSpec`.

    Raises:
        UserError: There is no such file, it is damaged, or it has what no artifact may have; or
            the manifest is damaged.
    """
    chosen = format_of(artifact)
    if not artifact.is_file():
        raise UserError(f"{artifact}: no such file; `./inv list` shows what is built")
    folder, specs = chosen.read(artifact, into)
    manifest = _manifest(artifact)
    arch = ARCHES[manifest.release.ARCH] if manifest else _arch_in_name(artifact)
    specs = {name: _with_arch(spec, arch) for name, spec in specs.items()}
    if not chosen.has_descriptor and manifest:
        sizes = manifest.machine
        specs = {
            name: replace(spec, memory_mib=sizes.memory_mib, cpus=sizes.cpus)
            for name, spec in specs.items()
        }
    return Opened(chosen, specs, folder)


def manifest_path(artifact: Path) -> Path:
    """Return where the manifest of an artifact is: beside it."""
    return artifact.with_name(f"{image_name(artifact)}{MANIFEST}")


def _with_arch(spec: MachineSpec, arch: Arch) -> MachineSpec:
    """Return the same machine for this architecture; with UEFI where it has no BIOS."""
    return replace(spec, arch=arch, firmware=spec.firmware if arch.bios else "efi")


def _arch_in_name(artifact: Path) -> Arch:
    """Return the architecture that a file's name ends with, or the default one."""
    ending = image_name(artifact).rpartition("-")[2]
    return next((arch for arch in ARCHES.values() if arch.name == ending), DEFAULT)


def _manifest(artifact: Path) -> _Manifest | None:
    path = manifest_path(artifact)
    if not path.is_file():
        return None
    try:
        return _Manifest.model_validate(json.loads(path.read_text("utf-8")))
    except (ValueError, ValidationError, RecursionError):
        raise UserError(
            f"{path}: is not a manifest, or a damaged one; download or build it again"
        ) from None
