"""Open a shipped file, trusting nothing in it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from hyraxvm.config.images import Machine
from hyraxvm.config.names import MANIFEST
from hyraxvm.core.errors import UserError
from hyraxvm.formats import Format, format_of, image_name
from hyraxvm.vm.qemu import MachineSpec


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

    Memory and CPUs of a format that does not declare them are those of the manifest beside the
    file, or `MachineSpec`'s defaults.

    Raises:
        UserError: There is no such file, it is damaged, or it holds what no artifact may.
    """
    chosen = format_of(artifact)
    if not artifact.is_file():
        raise UserError(f"{artifact}: no such file; `./inv list` shows what is built")
    folder, specs = chosen.read(artifact, into)
    if not chosen.declares and (machine := _machine(artifact)):
        specs = {
            name: replace(spec, memory_mib=machine.memory_mib, cpus=machine.cpus)
            for name, spec in specs.items()
        }
    return Opened(chosen, specs, folder)


def manifest_path(artifact: Path) -> Path:
    """The manifest that lies beside an artifact."""
    return artifact.with_name(f"{image_name(artifact)}{MANIFEST}")


def _machine(artifact: Path) -> Machine | None:
    path = manifest_path(artifact)
    if not path.is_file():
        return None
    try:
        return Machine.model_validate(json.loads(path.read_text("utf-8"))["machine"])
    except (ValueError, ValidationError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: is no manifest: it names no machine") from None
