"""Builds the pydap model of a file: an Array or a Grid for each variable.

DAP2 has no groups.  Variables and dimensions of groups get their path as a prefix: `/g/x` becomes
`g_x`, as with Hyrax's CF option.  Structures are no way out: clients mix up the attributes of equal
names in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import netCDF4
import numpy as np
from pydap.model import BaseType, DatasetType, GridType

from .array import LazyArray
from .library import library
from .names import STRING_DIMENSION, STRING_LENGTH, dap_name
from .source import Source

# Written by the netCDF and HDF5 libraries for their own use.
_INTERNAL = ("_NCProperties", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict")
# CF attributes with the type of the values: they are converted when the values are.
_TYPED = ("_FillValue", "missing_value", "valid_min", "valid_max", "valid_range")
# netCDF-C cuts strings at 64 bytes unless an attribute gives their length.  For variable-length
# strings only the values show it: they are read for this if there are at most this many.
_MEASURED_STRINGS = 10_000


def build(source: Source) -> DatasetType:
    """Return the model of the whole file; read only metadata (and the lengths of a few strings)."""
    dataset = DatasetType(dap_name(source.name.rsplit("/", 1)[-1]))
    with library():
        _Builder(dataset, source)
    for variable in dataset.children():
        if variable.dtype.kind == "S" and STRING_LENGTH not in variable.attributes:
            _measure(variable)
    return dataset


class _Builder:
    """Fills a dataset; must be used while holding `library()`."""

    def __init__(self, dataset: DatasetType, source: Source) -> None:
        self._source = source
        self._names: dict[str, str] = {}  # served name of each variable, by its path
        groups = list(_groups(source.dataset))
        variables = [(_path(g, n), v) for g in groups for n, v in g.variables.items()]
        served = [(path, v) for path, v in variables if _representable(v)]
        for path, _ in served:
            self._names[path] = self._free_name(path)
        items = [self._item(path, variable) for path, variable in served]
        # libdap's reader loses its place after an array of length 0, so these come last.
        for item in sorted(items, key=lambda item: 0 in item.shape):
            dataset[item.name] = item
        self._add_globals(dataset, groups, [p for p, _ in variables if p not in self._names])

    def _free_name(self, path: str) -> str:
        name = _flat(path)
        while name in self._names.values():
            name += "_"
        return name

    def _item(self, path: str, variable: netCDF4.Variable[Any]) -> BaseType | GridType:
        array = self._array(path, variable)
        maps = [self._map(d) for d in variable.get_dims()]
        # Clients expect neither Grids of strings nor a coordinate that is a Grid over itself.
        if not maps or None in maps or (path, variable) in maps or array.dtype.kind == "S":
            return array
        if 0 in array.shape or len(set(maps)) < len(maps):
            return array
        grid = GridType(array.name, attributes=array.attributes)
        for part in (array, *(self._array(*m) for m in maps if m)):
            grid[part.name] = part
        return grid

    def _map(self, dimension: netCDF4.Dimension) -> tuple[str, netCDF4.Variable[Any]] | None:
        """Return the path and the coordinate variable of a dimension; None if it has none."""
        path = _path(dimension.group(), dimension.name)
        variable = dimension.group().variables.get(dimension.name)
        if variable is None or variable.dimensions != (dimension.name,):
            return None
        if self._names.get(path) != _flat(path) or variable.dtype in (str, np.dtype("S1")):
            return None
        return path, variable

    def _array(self, path: str, variable: netCDF4.Variable[Any]) -> BaseType:
        attributes = _attributes(variable)
        unsigned = str(attributes.get("_Unsigned")).lower() == "true"
        data = LazyArray(self._source, variable, path, unsigned)
        dimensions = [_flat(_path(d.group(), d.name)) for d in variable.get_dims()]
        if data.is_char and dimensions:
            attributes[STRING_LENGTH] = np.int32(variable.shape[-1])
            attributes[STRING_DIMENSION] = dimensions.pop()
        for name in set(_TYPED) & set(attributes):
            attributes[name] = data.converted(attributes[name])
        if data.dtype.kind == "u":
            # netCDF-C reads unsigned integers as signed; xarray and netCDF4 undo that with this.
            attributes["_Unsigned"] = "true"
        elif data.dtype.kind == "f":
            attributes.pop("_Unsigned", None)
        if "/" in path:
            attributes["fullnamepath"] = f"/{path}"
        return BaseType(self._names[path], data, dimensions, attributes)

    def _add_globals(
        self, dataset: DatasetType, groups: list[netCDF4.Dataset], omitted: list[str]
    ) -> None:
        root, *others = groups
        attributes = _attributes(root)
        if omitted:
            attributes["dapdir_omitted"] = ", ".join(omitted)
        for group in others:
            prefix = group.path.strip("/").replace("/", "_")
            attributes |= {f"{prefix}_{name}": v for name, v in _attributes(group).items()}
        if attributes:
            dataset.attributes["NC_GLOBAL"] = attributes
        unlimited = [
            _flat(_path(g, n)) for g in groups for n, d in g.dimensions.items() if d.isunlimited()
        ]
        if len(unlimited) == 1:
            dataset.attributes["DODS_EXTRA"] = {"Unlimited_Dimension": unlimited[0]}


def _groups(group: netCDF4.Dataset) -> Iterator[netCDF4.Dataset]:
    yield group
    for below in group.groups.values():
        yield from _groups(below)


def _path(group: netCDF4.Dataset, name: str) -> str:
    return f"{group.path}/{name}".lstrip("/")


def _flat(path: str) -> str:
    return dap_name(path.replace("/", "_"))


def _representable(variable: netCDF4.Variable[Any]) -> bool:
    """Return whether DAP2 has a type for the values: not compound, vlen, opaque or complex."""
    kind = variable.datatype
    if variable.dtype is str or isinstance(kind, netCDF4.EnumType):
        return True
    return isinstance(kind, np.dtype) and (kind.kind in "iuf" or kind == np.dtype("S1"))


def _attributes(owner: Any) -> dict[str, Any]:
    found = {}
    for name in owner.ncattrs():
        if name in _INTERNAL:
            continue
        try:
            found[name] = owner.getncattr(name)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError):
            continue  # an attribute of a user-defined type, which DAP2 does not have
    return found


def _measure(variable: BaseType) -> None:
    if variable.size <= _MEASURED_STRINGS:
        longest = max((len(w) for block in variable.data for w in block.flat), default=0)
        variable.attributes[STRING_LENGTH] = np.int32(longest)
