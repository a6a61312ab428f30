"""Run Packer through packer.py: `python -m hyraxvm.stages.provision.packer PACKER TEMPLATE`.

This is a separate process because packer.py gives no access to the process that it starts.  Here
Packer is in the process group that `hyraxvm.core.process` ends as a whole, and it writes straight
to this process's output, so that its lines are seen at once.
"""

from __future__ import annotations

import re
import sys

from packerpy import PackerExecutable

from hyraxvm.core.process import output


def version() -> tuple[int, ...]:
    """Return Packer's version, as (major, minor, patch); raise `Failure` if it is not installed.

    An answer without a version gives (0, 0, 0).
    """
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", output(["packer", "version"]))
    return tuple(int(number) for number in found.groups()) if found else (0, 0, 0)


def main(packer: str, template: str) -> int:
    """Run `packer build`; return its exit status."""
    inherit = {"stdout": None, "stderr": None}
    executable = PackerExecutable(packer, machine_readable=False, config=inherit)
    arguments = {"color": "false", "on_error": "cleanup"}
    status: int = executable.build(template, **arguments)[0]
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
