"""TOML files that people edit: reading, checking against a schema, one line for the first fault."""

from __future__ import annotations

import tomllib
from copy import copy
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from hyraxvm.core.errors import UserError


class Model(BaseModel):
    """A table of a file: it refuses unknown keys, converts no values, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


M = TypeVar("M", bound=Model)


def load(path: Path, schema: type[M]) -> M:
    """Read and check a file.

    Raises `UserError`, which names the file, the key, the offending value and what is expected:
    the file is missing, is not TOML, or breaks the schema.
    """
    return check(path, parse(path), schema)


def parse(path: Path) -> dict[str, Any]:
    """Read a file; raises `UserError`: it cannot be read, is not UTF-8, or is not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: is not valid TOML: {error}") from error


def check(path: Path, table: object, schema: type[M], where: str = "") -> M:
    """Check a table against its schema; return it as an instance of the schema.

    `path` and `where` are its file and its key in there, for messages; `where` is empty for a whole
    file.  Raises `UserError` as `load` does.
    """
    try:
        return schema.model_validate(table)
    except ValidationError as error:
        raise UserError(f"{path}: {_first_fault(error, schema, where)}") from error


def partial(schema: type[Model]) -> type[Model]:
    """Return the schema of a part of a table: it has the same keys, and all are optional."""
    fields: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        part = copy(field)
        part.annotation = _partial_type(field.annotation)
        part.default, part.default_factory = None, None
        fields[name] = (part.annotation, part)
    return create_model(f"Part{schema.__name__}", __base__=Model, **fields)


def _partial_type(annotation: Any) -> Any:
    """Return the same type, in which each table is replaced by its partial schema."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return partial(annotation)
    if get_origin(annotation) is dict:
        key, value = get_args(annotation)
        return dict.__class_getitem__((key, _partial_type(value)))
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(_partial_type(part) for part in get_args(annotation))]  # noqa: UP007
    return annotation


def _first_fault(error: ValidationError, schema: type[Model], place: str) -> str:
    """Return the first fault as `key: value: what is expected`, below the key `place`."""
    # An unknown key first: if it is misspelt, it is the reason why another one is missing.
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    where = [str(part) for part in fault["loc"] if part != "[key]"]
    key = ".".join([*filter(None, [place]), *where])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if fault["type"] == "extra_forbidden":
        known = ", ".join(sorted(_schema_at(schema, where[:-1]).model_fields))
        return f"{key}: unknown key; expected: {known}{more}"
    if fault["type"] == "missing":
        return f"{key}: is missing; add it{more}"
    value = repr(fault["input"])
    shown = value if len(value) <= 60 else value[:57] + "..."
    return f"{key}: {shown}: {fault['msg'][0].lower()}{fault['msg'][1:]}{more}"


def _schema_at(schema: type[Model], where: list[str]) -> type[Model]:
    """Return the schema of the table at the keys `where`; a table of tables is a `dict`."""
    found: Any = schema
    for name in where:
        if get_origin(found) is dict:
            found = get_args(found)[1]
        else:
            found = found.model_fields[name].annotation
        if get_origin(found) in (Union, UnionType):
            (found,) = (part for part in get_args(found) if part is not NoneType)
    assert isinstance(found, type) and issubclass(found, Model)
    return found
