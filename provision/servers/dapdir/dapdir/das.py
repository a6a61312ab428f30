"""Writes the attributes (DAS) of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .model import Dataset
from .names import attribute_name, dap_number, dap_string, text_of

_TYPES = {
    "i1": "Int16", "u1": "Byte", "i2": "Int16", "u2": "UInt16", "i4": "Int32", "u4": "UInt32",
    "f4": "Float32", "f8": "Float64",
}  # fmt: skip


def das(dataset: Dataset) -> str:
    """Return the attributes of `dataset` and of everything in it."""
    lines = ["Attributes {\n"]
    for name, value in dataset.attributes.items():
        lines += _attribute(name, value, "    ")
    for member in dataset.members.values():
        lines += _container(member.name, member.attributes, "    ")
    return "".join([*lines, "}\n"])


def _container(name: str, attributes: Mapping[str, Any], indent: str) -> Iterator[str]:
    yield f"{indent}{name} {{\n"
    for key, value in attributes.items():
        yield from _attribute(key, value, indent + "    ")
    yield f"{indent}}}\n"


def _attribute(name: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from _container(attribute_name(name), value, indent)
        return
    kind, texts = _typed(value)
    if texts:  # DAP2 cannot write an attribute without values
        yield f"{indent}{kind} {attribute_name(name)} {', '.join(texts)};\n"


def _typed(value: Any) -> tuple[str, list[str]]:
    """Return the DAP2 type and values of an attribute as netCDF4 reads it."""
    values = np.atleast_1d(np.asarray(value))
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        values = _narrowed(values)
    if values.dtype.kind not in "iuf":
        words = (text_of(v) if isinstance(v, bytes) else str(v) for v in values.flat)
        return "String", [dap_string(word) for word in words]
    return _TYPES[values.dtype.str[1:]], [dap_number(v) for v in values.flat]


def _narrowed(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Convert 64-bit integers to the first of Int32, UInt32, Float64 that fits, else to text."""
    for kind in ("i4", "u4"):
        limits = np.iinfo(kind)
        if all(limits.min <= int(v) <= limits.max for v in values.flat):
            return values.astype(kind)
    if all(int(float(int(v))) == int(v) for v in values.flat):
        return values.astype("f8")
    return values.astype("U")
