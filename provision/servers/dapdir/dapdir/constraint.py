"""Parses DAP2 constraint expressions strictly, and applies them to a dataset's model.

Whatever is not exactly right is refused: nothing is clipped or ignored.
Grammar: DAP 2.0 (ESE-RFC-004), section 4.1; projections only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar
from urllib.parse import unquote

from .blocks import Slices
from .errors import RequestError
from .model import Array, Dataset, Grid
from .tree import shown

MAX_PARTS = 16  # of a name, between its dots
MAX_ENCODED = 4  # times that a client may have encoded a name
MAX_INDEX_DIGITS = 10

Member = TypeVar("Member", Array, Array | Grid)
Projection = list[tuple[str, list[tuple[int, int, int]]]]

_INDEX = rf"\d{{1,{MAX_INDEX_DIGITS}}}"
_SLAB = re.compile(rf"\[({_INDEX})(?::({_INDEX}))?(?::({_INDEX}))?\]", re.ASCII)
_BRACKETS = re.compile("%(?:5B|5D|3A)", re.IGNORECASE)  # [ ] :
_COMMAS = re.compile("%2C", re.IGNORECASE)
_PART = re.compile(rf"([^][.,()&=<>]*)((?:{_SLAB.pattern})*)", re.ASCII)
_NO_SELECTIONS = "selections are not supported: use [hyperslabs] to get a part of an array"


def constrain(dataset: Dataset, query: str) -> Dataset:
    """Return the part of `dataset` that a URL's query asks for; all of it for an empty query.

    Raises RequestError 400 for anything malformed, unknown, out of range or unsupported.
    """
    # Names in a DDS are percent-encoded ("a%20b").  Clients send them like that, with the brackets
    # after them encoded or not, the commas between them too, or encode everything again: the first
    # valid reading counts.
    brackets = _BRACKETS.sub(lambda m: unquote(m[0]), query)
    readings = [query, brackets, _COMMAS.sub(",", brackets), unquote(query, errors="replace")]
    names = Names(dataset)
    for reading in dict.fromkeys(readings):
        try:
            return _apply(dataset, parse(reading), names)
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
        if item[position] != "." or len(parts) > MAX_PARTS:
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


class Names:
    """The names in a dataset, found however often or partly a client encoded them."""

    def __init__(self, dataset: Dataset) -> None:
        """Take the dataset; its names are decoded when they are first needed."""
        self._dataset = dataset
        self._decoded: dict[str, str] = {}

    def find(self, name: str, members: Mapping[str, Member]) -> Member | None:
        """Return the member of the dataset, or of a Grid in it, with this name."""
        if name in members:
            return members[name]
        if members is not self._dataset.members:
            decoded = _decoded_names(members)
        else:
            decoded = self._decoded = self._decoded or _decoded_names(members)
        return members.get(decoded.get(_decode(name), ""))


def _decoded_names(members: Mapping[str, Member]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in members:
        decoded = _decode(name)
        found[decoded] = "" if decoded in found else name  # not one of two
    return found


def _decode(name: str) -> str:
    for _ in range(MAX_ENCODED):
        name = unquote(name)
    return name


def _apply(dataset: Dataset, projections: list[Projection], names: Names) -> Dataset:
    if not projections:
        return dataset
    chosen: dict[str, Slices] = {}
    for projection in projections:
        for identity, slices in _choose(dataset, projection, names):
            if chosen.setdefault(identity, slices) != slices:
                raise RequestError(400, f"{identity} is requested twice, with different hyperslabs")
    members = {}
    for name, member in dataset.members.items():
        part = _part(member, chosen)
        if part is not None:
            members[name] = part
    return Dataset(dataset.name, members, dataset.attributes)


def _choose(dataset: Dataset, projection: Projection, names: Names) -> Iterator[tuple[str, Slices]]:
    """Yield the arrays that one projection names, as (id, slices)."""
    found: Array | Grid | None
    found, triples, rest = _find(dataset.members, projection, names)
    if isinstance(found, Grid) and rest:
        if triples:
            raise RequestError(400, f"{found.id} has a hyperslab, but only a member is requested")
        found, triples, rest = _find(found.members, rest, names)
    if rest:
        raise RequestError(400, f"{found.id} has no members")
    slices = slices_of(triples, found.shape, found.id)
    if isinstance(found, Array):
        yield found.id, slices
        return
    array, *maps = found.members.values()
    yield array.id, slices
    for map_, slice_ in zip(maps, slices, strict=True):
        yield map_.id, (slice_,)


def _find(
    members: Mapping[str, Member], projection: Projection, names: Names
) -> tuple[Member, list[tuple[int, int, int]], Projection]:
    """Return what the first part of a name leads to, its hyperslabs, and the rest of the name."""
    (name, triples), *rest = projection
    while (found := names.find(name, members)) is None and rest and not triples:
        # RFC 3986 allows clients to send the "%2E" of a name as a dot.
        (more, triples), *rest = rest
        name = f"{name}.{more}"
    if found is None:
        raise RequestError(400, f"no such variable: {shown(name)!r}")
    return found, triples, rest


def _part(member: Array | Grid, chosen: dict[str, Slices]) -> Array | Grid | None:
    if isinstance(member, Array):
        return replace(member, slices=chosen[member.id]) if member.id in chosen else None
    found = {
        name: replace(array, slices=chosen[array.id])
        for name, array in member.members.items()
        if array.id in chosen
    }
    if not found:
        return None
    # DAP 2.0, 4.1: if only some members of a Grid are requested, it becomes a Structure.
    array, *maps = (chosen.get(array.id) for array in member.members.values())
    whole = array is not None and maps == [(slice_,) for slice_ in array]
    return Grid(found.get(member.name, member.array), found, whole)
