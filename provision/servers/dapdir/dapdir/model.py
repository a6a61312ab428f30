"""The pydap model of a file: Arrays, Grids, and a Structure for each group."""

from __future__ import annotations

from typing import Any

import netCDF4
import numpy as np
from pydap.model import BaseType, DatasetType, GridType, StructureType

from .array import LazyArray
from .names import dap_name
from .source import Source, library

# Written by the netCDF and HDF5 libraries for their own use.
_INTERNAL = ("_NCProperties", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict")
# CF attributes that must have the type of the values, and follow them when that type changes.
_TYPED = ("_FillValue", "missing_value", "valid_min", "valid_max", "valid_range")
# Clients of DAP2 cut strings at 64 bytes unless they are told a length; for variable-length
# strings it is known only from the values, which are read for this up to so many of them.
_MEASURED_STRINGS = 10_000


def build(source: Source) -> DatasetType:
    """The whole dataset, nothing of it read but metadata (and the lengths of few strings)."""
    dataset = DatasetType(dap_name(source.name.rsplit("/", 1)[-1]))
    omitted: list[str] = []
    with library():
        root = source.dataset
        _fill(dataset, root, source, omitted)
        attributes = _attributes(root)
        unlimited = [name for name, d in root.dimensions.items() if d.isunlimited()]
    if omitted:
        attributes["dapdir_omitted"] = ", ".join(omitted)
    if attributes:
        dataset.attributes["NC_GLOBAL"] = attributes
    if len(unlimited) == 1:
        dataset.attributes["DODS_EXTRA"] = {"Unlimited_Dimension": unlimited[0]}
    for variable in _strings(dataset):
        _measure(variable)
    return dataset


def _fill(
    container: StructureType, group: netCDF4.Dataset, source: Source, omitted: list[str]
) -> None:
    for name, variable in group.variables.items():
        path = f"{group.path.rstrip('/')}/{name}".lstrip("/")
        if _representable(variable):
            item = _array(variable, source, path)
            maps = [_map(group, dimension) for dimension in item.dims_of_file]
            if maps and all(m is not None and m is not variable for m in maps):
                item = _grid(item, maps, source)
            container[item.name] = item
        else:
            omitted.append(path)
    for name, subgroup in group.groups.items():
        structure = StructureType(dap_name(name), attributes=_attributes(subgroup))
        _fill(structure, subgroup, source, omitted)
        if len(structure):
            container[structure.name] = structure


def _representable(variable: netCDF4.Variable) -> bool:
    """Whether DAP2 has a type for the values: not for compound, vlen, opaque and complex."""
    kind = variable.datatype
    if variable.dtype is str or isinstance(kind, netCDF4.EnumType):
        return True
    return isinstance(kind, np.dtype) and (kind.kind in "iuf" or kind == np.dtype("S1"))


def _array(variable: netCDF4.Variable, source: Source, path: str) -> BaseType:
    data = LazyArray(source, variable, path)
    attributes = _attributes(variable)
    if data.dtype == np.dtype("f8"):
        attributes |= {k: np.asarray(attributes[k], "f8") for k in _TYPED if k in attributes}
    dimensions = list(variable.dimensions)
    if data.is_char and dimensions:
        attributes["DODS"] = {
            "strlen": np.int32(variable.shape[-1]), "dimName": dimensions.pop()
        }
    array = BaseType(
        dap_name(variable.name), data, [dap_name(d) for d in dimensions], attributes
    )
    array.dims_of_file = dimensions
    return array


def _map(group: netCDF4.Dataset, dimension: str) -> netCDF4.Variable | None:
    """The coordinate variable of a dimension, as seen from a group."""
    variable = group.variables.get(dimension)
    if variable is not None and variable.dimensions == (dimension,) and _representable(variable):
        return variable
    return None


def _grid(array: BaseType, maps: list[netCDF4.Variable], source: Source) -> GridType:
    grid = GridType(array.name, attributes=array.attributes)
    grid[array.name] = array
    for variable in maps:
        map_ = _array(variable, source, variable.name)
        grid[map_.name] = map_
    return grid


def _attributes(owner: Any) -> dict[str, Any]:
    found = {}
    for name in owner.ncattrs():
        if name in _INTERNAL:
            continue
        try:
            value = owner.getncattr(name)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError):
            continue  # of a user-defined type, for which DAP2 has no attribute
        found[name] = value
    return found


def _strings(container: StructureType) -> list[BaseType]:
    found = []
    for child in container.children():
        if isinstance(child, BaseType):
            if child.dtype.kind == "S" and not child.data.is_char:
                found.append(child)
        else:
            found += _strings(child)
    return found


def _measure(variable: BaseType) -> None:
    if variable.size <= _MEASURED_STRINGS:
        longest = max((len(w) for block in variable.data for w in block.flat), default=0)
        variable.attributes["DODS"] = {"strlen": np.int32(longest)}
