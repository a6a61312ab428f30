"""In what the DAP servers differ as seen from outside; everything else is the same for all.

What a server claims is in its folder, `provision/servers/FOLDER/capabilities.toml`; what it claims
there, `test_2_claims.py` and `test_2_samples.py` test.  A server without that file claims what
every server does: the defaults below.
"""

from __future__ import annotations

from pydantic import Field

from hyraxvm.config import images, toml
from hyraxvm.core.paths import PROVISION


class Capabilities(toml.Model):
    """How a server answers; every suffix is put behind the URL of a data file."""

    # HTTP status: a file that is not there, a wrong constraint, HEAD, the URL of the file itself.
    # None: whatever the server likes, but no data for a wrong constraint.
    missing: int = 404
    bad_constraint: int | None = None
    head: int | None = None
    file: int | None = None
    # Whether clients that know DAP4 only can be used too.
    dap4: bool | None = None
    # Suffixes that are answered, and some that readers of other servers may try in vain.
    responses: list[str] = Field(default_factory=list)
    refused: list[str] = Field(default_factory=list)
    # Those of the answered that have the values as text, and those that are netCDF files.
    numbers: list[str] = Field(default_factory=list)
    netcdf: list[str] = Field(default_factory=list)
    # Names below a directory's URL: lists for people, and THREDDS catalogs.
    listings: list[str] = Field(default_factory=lambda: [""])
    catalogs: list[str] = Field(default_factory=list)
    # Whether a symbolic link is served that stays inside the data root; none is that leaves it.
    links: bool | None = None
    # Whether a file whose name begins with a dot is refused; no listing shows one.
    refuses_hidden: bool | None = None


def load(server: str) -> Capabilities:
    """What the server `server` of images.toml claims; the defaults for one that is not there."""
    known = images.load().server
    folder = (known[server].folder if server in known else None) or "generic"
    path = PROVISION / "servers" / folder / "capabilities.toml"
    return toml.load(path, Capabilities) if path.is_file() else Capabilities()
