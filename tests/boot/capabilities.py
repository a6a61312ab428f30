"""In what the DAP servers differ as seen from outside; everything else is the same for all.

What a server claims stands in its folder, `provision/servers/NAME/capabilities.toml`; what it
claims there, `test_2_claims.py` and `test_2_samples.py` test.
"""

from __future__ import annotations

from hyraxvm.config import toml
from hyraxvm.core.paths import PROVISION


class Capabilities(toml.Model):
    """How a server answers; every suffix is put behind the URL of a data file."""

    # HTTP status: a file that is not there, a wrong constraint, HEAD, the URL of the file itself.
    missing: int
    bad_constraint: int
    head: int
    file: int
    # Whether clients that know DAP4 only can be used too.
    dap4: bool
    # Suffixes that are answered, and some that readers of other servers may try in vain.
    responses: list[str]
    refused: list[str]
    # Those of the answered that have the values as text, and those that are netCDF files.
    numbers: list[str]
    netcdf: list[str]
    # Names below a directory's URL: lists for people, and THREDDS catalogs.
    listings: list[str]
    catalogs: list[str]
    # Whether a symbolic link is served that stays inside the data root; none is that leaves it.
    links: bool
    # Whether a file whose name begins with a dot is refused; no listing shows one.
    refuses_hidden: bool


def load(server: str) -> Capabilities:
    """What the server `server` claims."""
    return toml.load(PROVISION / "servers" / server / "capabilities.toml", Capabilities)
