"""Writes the DAS (attributes) of a dataset.

pydap's own writer rounds numbers to six digits, escapes nothing, cannot encode non-ASCII text and
writes 64-bit integers as Int32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pydap.lib import NUMPY_TO_DAP2_TYPEMAP
from pydap.model import GridType, StructureType

from .names import STRING_DIMENSION, STRING_LENGTH, dap_name, dap_number, dap_string


def das(dataset: StructureType) -> str:
    """Return the attributes of `dataset` and of everything in it."""
    return "".join(["Attributes {\n", *_members(dataset, 1), "}\n"])


def _members(variable: Any, level: int) -> Iterator[str]:
    for name, value in variable.attributes.items():
        yield from _attribute(name, value, level)
    if isinstance(variable, StructureType) and not isinstance(variable, GridType):
        for child in variable.children():
            yield from _container(child.name, _members(child, level + 1), level)


def _container(name: str, lines: Iterator[str], level: int) -> Iterator[str]:
    yield f"{'    ' * level}{name} {{\n"
    yield from lines
    yield f"{'    ' * level}}}\n"


def _attribute(name: str, value: Any, level: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        inner = (line for k, v in value.items() for line in _attribute(k, v, level + 1))
        yield from _container(dap_name(name), inner, level)
        return
    kind, texts = _typed(value)
    if texts:  # DAP2 cannot write an attribute without values
        yield f"{'    ' * level}{kind} {_name(name)} {', '.join(texts)};\n"


def _name(name: str) -> str:
    # Clients recognise these two by their dot: it must not be encoded.
    return name if name in (STRING_LENGTH, STRING_DIMENSION) else dap_name(name)


def _typed(value: Any) -> tuple[str, list[str]]:
    """Return the DAP2 type and values of an attribute as netCDF4 reads it."""
    values = np.atleast_1d(np.asarray(value))
    if values.dtype.kind not in "iuf":
        return "String", [dap_string(str(v)) for v in values.flat]
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        values = _narrowed(values)
        if values.dtype.kind == "U":
            return "String", [dap_string(str(v)) for v in values.flat]
    return NUMPY_TO_DAP2_TYPEMAP[values.dtype.char], [dap_number(v) for v in values.flat]


def _narrowed(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Convert 64-bit integers to the first of Int32, UInt32, Float64 that fits, else to text."""
    for kind in ("i4", "u4"):
        limits = np.iinfo(kind)
        if all(limits.min <= int(v) <= limits.max for v in values.flat):
            return values.astype(kind)
    if all(int(float(int(v))) == int(v) for v in values.flat):
        return values.astype("f8")
    return values.astype("U")
