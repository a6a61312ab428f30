"""Writes names, numbers and strings as DAP2 does."""

from __future__ import annotations

from urllib.parse import quote

import numpy as np

# netCDF-C learns a string's length from these.  Other servers write a container DODS { strlen },
# which its present versions take for a global attribute.
STRING_LENGTH = "DODS.strlen"
STRING_DIMENSION = "DODS.dimName"


def dap_name(name: str) -> str:
    """Percent-encode every octet of UTF-8 that is not a letter, a digit, `_` or `-`.

    pydap's own quoting does not encode quotation marks, `%` and others, and netCDF-C's reader also
    fails on `~!'`.  pydap's quoting does not change the result.
    """
    return quote(name, safe="").replace(".", "%2E").replace("~", "%7E")


def dap_number(value: np.generic) -> str:
    """Return the shortest text that reads back as the same number; pydap's has only six digits."""
    if isinstance(value, np.floating) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Inf" if value > 0 else "-Inf"
    return str(value)


def dap_string(text: str) -> str:
    """Return `text` as a quoted string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
