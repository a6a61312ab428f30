"""Names and numbers as DAP2 writes them."""

from __future__ import annotations

from urllib.parse import quote

import numpy as np

# How netCDF-C is told of a string's length; the container DODS { strlen } that other servers write
# is taken for a global attribute by its present versions.
STRING_LENGTH = "DODS.strlen"
STRING_DIMENSION = "DODS.dimName"


def dap_name(name: str) -> str:
    """Percent-encode every octet of UTF-8 that is not a letter, a digit, `_` or `-`.

    pydap's own quoting leaves quotation marks, `%` and others alone, and netCDF-C's reader also
    stumbles over `~!'`.  The result passes pydap's quoting unchanged.
    """
    return quote(name, safe="").replace(".", "%2E").replace("~", "%7E")


def dap_number(value: np.generic) -> str:
    """The shortest text that reads back as the same number; pydap's would keep six digits."""
    if isinstance(value, np.floating) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Inf" if value > 0 else "-Inf"
    return str(value)


def dap_string(text: str) -> str:
    """A quoted string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
