"""How the DAP servers differ as seen from outside; everything else is the same for all.

Each server has its claims in `provision/servers/FOLDER/capabilities.toml`.  `test_claims.py` and
`test_samples.py` test them.
A server without that file claims what every server does: the defaults below.
"""

from __future__ import annotations

from pydantic import Field

from hyraxvm.config import images, toml
from hyraxvm.core.paths import PROVISION


class Capabilities(toml.Model):
    """How a server answers; a suffix is appended to the URL of a data file."""

    # HTTP status for a missing file, a wrong constraint, and the URL of the file itself.
    # None: any; for a wrong constraint any error.
    missing: int = 404
    bad_constraint: int | None = None
    file: int | None = None
    # Whether DAP4 is served too.
    dap4: bool | None = None
    # Suffixes that are answered, and some that only other servers answer.
    responses: list[str] = Field(default_factory=list)
    refused: list[str] = Field(default_factory=list)
    # Of the answered suffixes: those with the values as text, and those that are netCDF files.
    numbers: list[str] = Field(default_factory=list)
    netcdf: list[str] = Field(default_factory=list)
    # Names below the URL of a directory: listings for people, and THREDDS catalogs.
    listings: list[str] = Field(default_factory=lambda: [""])
    catalogs: list[str] = Field(default_factory=list)
    # Whether a symbolic link inside the data root is served; one that leads out never is.
    links: bool | None = None
    # Whether a file whose name begins with a dot is refused; no listing shows it in any case.
    refuses_hidden: bool | None = None


def load(server: str) -> Capabilities:
    """Return what the server `server` claims; the defaults, if images.toml does not have it."""
    known = images.load().server
    folder = (known[server].folder if server in known else None) or "generic"
    path = PROVISION / "servers" / folder / "capabilities.toml"
    return toml.load(path, Capabilities) if path.is_file() else Capabilities()
