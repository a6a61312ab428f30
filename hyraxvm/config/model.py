"""Types that several layers share: a server's image, a file that was built, its boot tests."""

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
    """What one line of a server's `trim` list has removed, or the step for debugging sections."""

    model_config = ConfigDict(frozen=True)

    pattern: str
    paths: int
    bytes: int


class Account(BaseModel):
    """A user of the server's image under whose id something runs; the guest has the same user."""

    model_config = ConfigDict(frozen=True)

    name: str
    uid: int
    group: str
    gid: int


class ServerImage(BaseModel):
    """What the pipeline and the guest need to know about a server's OCI image."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    reference: str
    image_digest: str
    entrypoint: list[str]
    environment: dict[str, str]
    working_directory: str
    # The user that reads the data; it is the first of `accounts`.
    user: str
    uid: int
    gid: int
    accounts: list[Account]
    writable: list[str]  # directories of the image
    labels: dict[str, str]
    packages: dict[str, str]  # as `inventory` names them
    trimmed: list[Trimmed]
    # What the server's `prepare.py` found out, for the templates in its folder.
    facts: dict[str, str] = Field(default_factory=dict)
    # Files for the guest that were made from files of the image: path -> text.
    files: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A file that was built, and the verdict of its boot test, or None if it was not tested."""

    path: Path
    verdict: dict[str, object] | None
