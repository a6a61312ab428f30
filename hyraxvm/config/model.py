"""What several layers know of: a server's image, a file that was built, its boot tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

# The two boot tests, the lesser one first: one boot and the first value, or the whole contract.
SMOKE: Final = "smoke"
FULL: Final = "full"
LEVELS: Final = (SMOKE, FULL)


class Trimmed(BaseModel):
    """What one line of a server's `trim` list has removed; debugging sections are one more."""

    model_config = ConfigDict(frozen=True)

    pattern: str
    paths: int
    bytes: int


class Account(BaseModel):
    """A user of the image under whose id something runs; the guest has the same one."""

    model_config = ConfigDict(frozen=True)

    name: str
    uid: int
    group: str
    gid: int


class ServerImage(BaseModel):
    """What the pipeline and the guest need to know of a server's OCI image."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    reference: str
    image_digest: str
    entrypoint: list[str]
    environment: dict[str, str]
    working_directory: str
    # Who reads the data; `accounts` has this one first.
    user: str
    uid: int
    gid: int
    accounts: list[Account]
    writable: list[str]  # directories of the image
    labels: dict[str, str]
    packages: dict[str, str]  # as `inventory` names them
    trimmed: list[Trimmed]
    # What the server's `prepare.py` has found, for the templates in its folder.
    facts: dict[str, str] = Field(default_factory=dict)
    # Files for the guest that were made from the image's own: path -> text.
    files: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A file that was built, and the boot test's verdict if it was tested."""

    path: Path
    verdict: dict[str, object] | None
