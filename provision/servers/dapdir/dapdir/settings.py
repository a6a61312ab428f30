"""The administrator's settings, which come in the environment: EMAIL, SYMLINKS, TYPES."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

_DATA = (".nc", ".nc3", ".nc4", ".cdf", ".h5", ".hdf5", ".he5")
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+")
# netCDF-C distinguishes netCDF and HDF5 by itself; only other servers need the type.
_TYPE = re.compile(r"(?:nc|h5):([A-Za-z0-9._*?-]+)")


@dataclass(frozen=True)
class Settings:
    """The administrator's address, whether to follow symbolic links, names of data files."""

    email: str = ""
    links: bool = True
    types: tuple[str, ...] = ()

    @classmethod
    def read(cls, environment: Mapping[str, str], complain: Callable[[str], object]) -> Settings:
        """Return the settings in `environment`.

        A wrong one counts as if it were not there: data are served in any case.  `complain` gets
        one line for it.
        """
        email, links = environment.get("EMAIL", ""), environment.get("SYMLINKS") or "yes"
        if email and not _EMAIL.fullmatch(email):
            complain(f"EMAIL={email!r} is not an e-mail address; it is not used")
            email = ""
        if links not in ("yes", "no"):
            complain(f"SYMLINKS={links!r} must be yes or no; it is not used")
            links = "yes"
        found: list[str] = []
        for word in environment.get("TYPES", "").split():
            match = _TYPE.fullmatch(word)
            if not match:
                complain(
                    f"TYPES: {word!r} must be nc:PATTERN or h5:PATTERN, like nc:*.dat; "
                    "TYPES is not used"
                )
                found = []
                break
            found.append(match[1])
        return cls(email, links == "yes", tuple(found))

    def is_data(self, name: str) -> bool:
        """Return whether a file of this name can be opened with DAP."""
        return name.lower().endswith(_DATA) or any(fnmatchcase(name, t) for t in self.types)


DEFAULTS = Settings()
