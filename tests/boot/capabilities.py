"""How the DAP servers differ as seen from outside; everything else is the same for all.

Each server has its claims in `provision/servers/NAME/capabilities.toml`.  `test_claims.py` and
`test_samples.py` test them.
"""

from __future__ import annotations

from hyraxvm.config import toml
from hyraxvm.core.paths import PROVISION


class Capabilities(toml.Model):
    """How a server answers; a suffix is appended to the URL of a data file."""

    # HTTP status for a missing file, a wrong constraint, HEAD, and the URL of the file itself.
    missing: int
    bad_constraint: int
    head: int
    file: int
    # Whether DAP4 is served too.
    dap4: bool
    # Suffixes that are answered, and some that only other servers answer.
    responses: list[str]
    refused: list[str]
    # Of the answered suffixes: those with the values as text, and those that are netCDF files.
    numbers: list[str]
    netcdf: list[str]
    # Names below the URL of a directory: listings for people, and THREDDS catalogs.
    listings: list[str]
    catalogs: list[str]
    # Whether a symbolic link inside the data root is served; one that leads out never is.
    links: bool
    # Whether a file whose name begins with a dot is refused; no listing shows it in any case.
    refuses_hidden: bool


def load(server: str) -> Capabilities:
    """Return what the server `server` claims."""
    return toml.load(PROVISION / "servers" / server / "capabilities.toml", Capabilities)
