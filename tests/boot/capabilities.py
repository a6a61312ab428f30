"""In what the DAP servers differ as seen from outside; everything else is the same for all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capabilities:
    """How a server answers: HTTP status of a file that is not there, and of a wrong constraint."""

    missing: int
    bad_constraint: int
    # Whether clients that know DAP4 only can be used too.
    dap4: bool


SERVERS = {
    "dapdir": Capabilities(missing=404, bad_constraint=400, dap4=False),
}
