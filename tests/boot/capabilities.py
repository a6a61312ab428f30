"""In what the DAP servers differ as seen from outside; everything else is the same for all.

What a server claims here, `test_2_claims.py` tests.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capabilities:
    """How a server answers: HTTP status of a file that is not there, and of a wrong constraint."""

    missing: int
    bad_constraint: int
    # Whether clients that know DAP4 only can be used too.
    dap4: bool
    # Suffixes to which a data file answers.
    responses: tuple[str, ...]
    # Those of them that are netCDF files.
    netcdf: tuple[str, ...] = ()
    # Whether a symbolic link is served that stays inside the data root; none is that leaves it.
    links: bool = False
    # Whether a file whose name begins with a dot is refused; no listing shows one.
    refuses_hidden: bool = False


SERVERS = {
    "dapdir": Capabilities(
        missing=404,
        bad_constraint=400,
        dap4=False,
        responses=(".dds", ".das", ".dods", ".ascii", ".asc", ".html", ".ver"),
        links=True,
        refuses_hidden=True,
    ),
    "hyrax": Capabilities(
        missing=404,
        bad_constraint=400,
        dap4=True,
        responses=(
            *(".dds", ".das", ".ddx", ".dods", ".ascii", ".csv", ".html", ".info", ".ver"),
            *(
                ".nc",
                ".nc4",
                ".json",
                ".dmr",
                ".dmr.xml",
                ".dap",
                ".dap.csv",
                ".dap.nc",
                ".dap.nc4",
            ),
        ),
        netcdf=(".nc", ".nc4", ".dap.nc", ".dap.nc4"),
    ),
}
