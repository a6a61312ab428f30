"""Parses DAP2 constraint expressions strictly, and applies them to a dataset's model.

pydap's own parser accepts negative numbers, ignores what does not match, and clips hyperslabs to
the array; this one refuses whatever is not exactly right.
Grammar: DAP 2.0 (ESE-RFC-004), section 4.1; projections only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from urllib.parse import unquote

from pydap.model import BaseType, DatasetType, GridType, StructureType

from .errors import RequestError
from .tree import shown

MAX_LENGTH = 8000
MAX_INDEX_DIGITS = 10

Slices = tuple[slice, ...]
Projection = list[tuple[str, list[tuple[int, int, int]]]]

_INDEX = rf"\d{{1,{MAX_INDEX_DIGITS}}}"
_SLAB = re.compile(rf"\[({_INDEX})(?::({_INDEX}))?(?::({_INDEX}))?\]", re.ASCII)
_BRACKETS = re.compile("%(?:5B|5D|3A|2C)", re.IGNORECASE)  # [ ] : ,
_PART = re.compile(rf"([^][.,()&=<>]+)((?:{_SLAB.pattern})*)", re.ASCII)
_NO_SELECTIONS = "selections are not supported: use [hyperslabs] to get a part of an array"


def constrain(dataset: DatasetType, query: str) -> DatasetType:
    """Return the part of `dataset` that a URL's query asks for; all of it for an empty query.

    Raises RequestError 400 for anything malformed, unknown, out of range or unsupported.
    """
    if len(query) > MAX_LENGTH:
        raise RequestError(400, f"the constraint is longer than {MAX_LENGTH} characters")
    # Names in a DDS are percent-encoded ("a%20b").  Clients send them like that, with the brackets
    # after them encoded or not, or encode everything again: the first valid reading counts.
    readings = [query, _BRACKETS.sub(lambda m: unquote(m[0]), query)]
    readings.append(unquote(query, errors="replace"))
    for reading in dict.fromkeys(readings):
        try:
            return _apply(dataset, parse(reading))
        except RequestError as error:
            failure = error
    raise failure


def parse(query: str) -> list[Projection]:
    """Split into projections: for each part of a name, its (start, stride, last) triples."""
    projection, *selections = query.split("&")
    if any(selections):
        raise RequestError(400, _NO_SELECTIONS)
    return [_parse_item(item) for item in projection.split(",")] if projection else []


def _parse_item(item: str) -> Projection:
    if "(" in item:
        raise RequestError(400, "server functions are not supported")
    if any(character in item for character in "=<>"):
        raise RequestError(400, _NO_SELECTIONS)
    parts: Projection = []
    position = 0
    while match := _PART.match(item, position):
        parts.append((match[1], [_triple(slab) for slab in _SLAB.findall(match[2])]))
        position = match.end()
        if position == len(item):
            return parts
        if item[position] != ".":
            break
        position += 1
    raise RequestError(400, f"malformed constraint: {shown(item)!r}")


def _triple(slab: tuple[str, str, str]) -> tuple[int, int, int]:
    first, second, third = slab
    if third:
        return int(first), int(second), int(third)
    return int(first), 1, int(second or first)


def slices_of(triples: list[tuple[int, int, int]], shape: tuple[int, ...], name: str) -> Slices:
    """Check hyperslabs against a shape; no hyperslab at all means the whole array."""
    if not triples:
        return tuple(slice(0, length, 1) for length in shape)
    if len(triples) != len(shape):
        raise RequestError(
            400, f"{name} has {len(shape)} dimension(s), but the constraint has {len(triples)}"
        )
    for dimension, ((start, stride, last), length) in enumerate(zip(triples, shape, strict=True)):
        if stride < 1 or start > last or last >= length:
            raise RequestError(
                400,
                f"[{start}:{stride}:{last}] does not fit dimension {dimension} of {name}, "
                f"which has length {length}",
            )
    return tuple(slice(start, last + 1, stride) for start, stride, last in triples)


def _apply(dataset: DatasetType, projections: list[Projection]) -> DatasetType:
    if not projections:
        return dataset
    chosen: dict[str, Slices] = {}
    for projection in projections:
        for identity, slices in _choose(dataset, projection):
            if chosen.setdefault(identity, slices) != slices:
                raise RequestError(400, f"{identity} is requested twice, with different hyperslabs")
    return _rebuild(dataset, chosen)


def _choose(dataset: DatasetType, projection: Projection) -> Iterator[tuple[str, Slices]]:
    """Yield the arrays that one projection names, as (id, slices)."""
    found = dataset
    rest = list(projection)
    while rest:
        known = {child.name: child for child in found.children()}
        name, triples = rest.pop(0)
        while not (key := _key(name, known)) and rest and not triples:
            # RFC 3986 allows clients to send the "%2E" of a name as a dot.
            more, triples = rest.pop(0)
            name = f"{name}.{more}"
        if not key:
            raise RequestError(400, f"no such variable: {shown(name)!r}")
        found = known[key]
        if rest and isinstance(found, BaseType):
            raise RequestError(400, f"{found.id} has no members")
        if rest and triples:
            raise RequestError(400, f"{found.id} has a hyperslab, but only a member is requested")
    if isinstance(found, GridType):
        slices = slices_of(triples, found.array.shape, found.id)
        yield found.array.id, slices
        for map_, slice_ in zip(found.maps.values(), slices, strict=True):
            yield map_.id, (slice_,)
    else:
        yield found.id, slices_of(triples, found.shape, found.id)


def _key(name: str, known: Collection[str]) -> str:
    """Find the known name, however often or partly a client encoded it; "" if there is none."""
    if name in known:
        return name
    same = [candidate for candidate in known if _decoded(candidate) == _decoded(name)]
    return same[0] if len(same) == 1 else ""


def _decoded(name: str) -> str:
    while (decoded := unquote(name)) != name:
        name = decoded
    return name


def _rebuild(container: StructureType, chosen: dict[str, Slices]) -> StructureType:
    kind = type(container)
    if isinstance(container, GridType) and not _still_a_grid(container, chosen):
        # DAP 2.0, 4.1: if only some members of a Grid are requested, it becomes a Structure.
        kind = StructureType
    result = kind(container.name, attributes=container.attributes)
    for child in container.children():
        if isinstance(child, StructureType):
            rebuilt = _rebuild(child, chosen)
            if len(rebuilt):
                result[child.name] = rebuilt
        elif child.id in chosen:
            data = child.data.select(chosen[child.id])
            result[child.name] = BaseType(child.name, data, child.dims, child.attributes)
    return result


def _still_a_grid(grid: GridType, chosen: dict[str, Slices]) -> bool:
    array, *maps = (chosen.get(child.id) for child in grid.children())
    return array is not None and maps == [(slice_,) for slice_ in array]
