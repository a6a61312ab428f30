"""The table `layout.toml`: how the official Hyrax image is laid out."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE = tomllib.loads((Path(__file__).parent / "layout.toml").read_text())
VARIANTS: tuple[str, ...] = tuple(TABLE["variant"])


@dataclass(frozen=True)
class Layout:
    """The layout of one variant of the image, `el8` or `el9`."""

    variant: str
    table: dict[str, Any]
    tomcat: str  # Tomcat's folder
    servlets: str  # javax or jakarta
    environment: dict[str, str]

    @property
    def paths(self) -> dict[str, str]:
        """Path -> `MODE UID GID`, or the target of a link."""
        return {**self.table["paths"], **self.table["links"]}


def layout(variant: str) -> Layout:
    """Return the layout of a variant, with Tomcat's version in it."""
    own = TABLE["variant"][variant]

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {filled(name): filled(each) for name, each in value.items()}
        return value.replace("{tomcat}", own["tomcat"]) if isinstance(value, str) else value

    table = filled({name: value for name, value in TABLE.items() if name != "variant"})
    return Layout(
        variant,
        table,
        table["links"]["/usr/share/tomcat"],
        own["servlets"],
        {**table["environment"], **own["environment"]},
    )
