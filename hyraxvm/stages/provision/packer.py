"""Drives Packer through packer.py: `python -m hyraxvm.stages.provision.packer PACKER TEMPLATE`.

A process of its own, because packer.py neither hands out the process that it starts nor ends it:
here Packer shares the process group that `hyraxvm.core.process` ends as a whole, and its output
goes straight to that of this process, so that it is seen while it happens.
"""

from __future__ import annotations

import re
import sys

from packerpy import PackerExecutable

from hyraxvm.core.process import output


def version() -> tuple[int, ...]:
    """Packer's version, as (major, minor, patch); raises `Failure` when it is not installed."""
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", output(["packer", "version"]))
    return tuple(int(number) for number in found.groups()) if found else (0, 0, 0)


def main(packer: str, template: str) -> int:
    """Run `packer build`; returns its exit status."""
    inherit = {"stdout": None, "stderr": None}
    executable = PackerExecutable(packer, machine_readable=False, config=inherit)
    arguments = {"color": "false", "on_error": "cleanup"}
    status: int = executable.build(template, **arguments)[0]
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
