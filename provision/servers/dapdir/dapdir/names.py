"""Writes names, numbers and strings as DAP2 does."""

from __future__ import annotations

import re
import zlib
from urllib.parse import quote

import numpy as np

# netCDF-C learns a string's length from these.  Other servers write a container DODS { strlen },
# which its present versions take for a global attribute.
STRING_LENGTH = "DODS.strlen"
STRING_DIMENSION = "DODS.dimName"

MAX_NAME = 200  # octets; netCDF-C's clients refuse 256
_FIRST = re.compile(r"[A-Za-z0-9_]")
_REFUSED = re.compile(r"[\x00-\x1f\x7f/]|[ ]+\Z")
_RAW = ".:+#"  # netCDF-C, libdap and pydap read these in a name of an attribute as they are


def client_name(name: str) -> str:
    """Return a name that DAP2 clients accept; netCDF-C opens nothing of a file with another one."""
    name = _REFUSED.sub("_", name)
    if not _FIRST.match(name):
        name = f"_{name}"
    octets = name.encode("utf-8", "replace")
    if len(octets) > MAX_NAME:
        name = f"{octets[:MAX_NAME].decode('utf-8', 'ignore')}_{zlib.crc32(octets):08x}"
    return name


def dap_name(name: str) -> str:
    """Percent-encode every octet of UTF-8 that is not a letter, a digit, `_` or `-`.

    netCDF-C's reader fails on quotation marks, `~!'` and others.
    """
    return quote(name, safe="", errors="replace").replace(".", "%2E").replace("~", "%7E")


def attribute_name(name: str) -> str:
    """Return the name of an attribute as clients show it."""
    return quote(client_name(name), safe=_RAW, errors="replace").replace("~", "%7E")


def dap_number(value: np.generic) -> str:
    """Return the shortest text that reads back as the same number."""
    if isinstance(value, np.floating) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Inf" if value > 0 else "-Inf"
    return str(value)


def dap_string(text: str) -> str:
    """Return `text` as a quoted string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def text_of(octets: bytes) -> str:
    """Decode text of a file: UTF-8, or else Latin-1, in which every octet is a character."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")
