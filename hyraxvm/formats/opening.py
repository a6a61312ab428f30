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
    """Of the machine in a manifest, what a format without a descriptor does not say."""

    cpus: int
    memory_mib: int


class _Release(BaseModel):
    """Of the guest's version file in a manifest, what decides how the machine is emulated."""

    ARCH: ArchName


class _Manifest(BaseModel):
    machine: _Sizes
    release: _Release


@dataclass(frozen=True)
class Opened:
    """An artifact, unpacked to `folder`: its format, and the machines to boot it as.

    The first machine of `specs` is the one that a user of the format most likely has.
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

    The architecture, and memory and CPUs of a format that does not declare them, are those of the
    manifest beside the file; without one, the architecture that the file's name ends with, and
    `MachineSpec`'s defaults.

    Raises:
        UserError: There is no such file, it is damaged, or it holds what no artifact may.
    """
    chosen = format_of(artifact)
    if not artifact.is_file():
        raise UserError(f"{artifact}: no such file; `./inv list` shows what is built")
    folder, specs = chosen.read(artifact, into)
    manifest = _manifest(artifact)
    arch = ARCHES[manifest.release.ARCH] if manifest else _named(artifact)
    specs = {name: _on(spec, arch) for name, spec in specs.items()}
    if not chosen.declares and manifest:
        sizes = manifest.machine
        specs = {
            name: replace(spec, memory_mib=sizes.memory_mib, cpus=sizes.cpus)
            for name, spec in specs.items()
        }
    return Opened(chosen, specs, folder)


def manifest_path(artifact: Path) -> Path:
    """The manifest that lies beside an artifact."""
    return artifact.with_name(f"{image_name(artifact)}{MANIFEST}")


def _on(spec: MachineSpec, arch: Arch) -> MachineSpec:
    """The same machine of this architecture."""
    return replace(spec, arch=arch, firmware=spec.firmware if arch.bios else "efi")


def _named(artifact: Path) -> Arch:
    """The architecture that a file's name ends with, else the usual one."""
    ending = image_name(artifact).rpartition("-")[2]
    return next((arch for arch in ARCHES.values() if arch.name == ending), DEFAULT)


def _manifest(artifact: Path) -> _Manifest | None:
    path = manifest_path(artifact)
    if not path.is_file():
        return None
    try:
        return _Manifest.model_validate(json.loads(path.read_text("utf-8")))
    except (ValueError, ValidationError, RecursionError):
        raise UserError(f"{path}: is no manifest: it names no machine") from None
