"""`publish.toml`: where releases go, where users get them, and which key signs them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from hyraxvm.config import toml
from hyraxvm.config.toml import Model
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import ROOT

PUBLISH_TOML: Final = ROOT / "publish.toml"
VARIABLE: Final = "HYRAX_VM_PUBLISH"  # names a file to be read instead

# Amazon S3 user guide, "General purpose bucket naming rules".
Bucket = Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$")]
Prefix = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*/)*$")]
# Without a user, so that neither this file nor a message that quotes the URL has credentials.
Endpoint = Annotated[str, StringConstraints(pattern=r"^(https?://[^\s/@]+(/[^\s]*)?)?$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]*$")]
Url = Annotated[str, StringConstraints(pattern=r"^((https?|s3)://[^\s?#@/]+(/[^\s?#]*)?)?$")]
Folder = Annotated[
    str,
    StringConstraints(
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9][A-Za-z0-9._-]*)*)?$"
    ),
]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^([0-9A-F]{40})?$")]


class StoreSettings(Model):
    """A bucket of an S3-compatible store; boto3 looks elsewhere for what is empty."""

    bucket: Bucket
    prefix: Prefix
    endpoint: Endpoint
    region: Word
    profile: Word
    cache: Folder
    style: Literal["", "path", "virtual"] = ""


class Download(Model):
    """Where users get releases without credentials; `mirrors` are tried after `url`, in turn."""

    url: Url
    mirrors: list[Url] = Field(default_factory=list)


class Signing(Model):
    """The OpenPGP key that signs releases, and that downloads are checked with."""

    key: Fingerprint


class Nightly(Model):
    """How many nightly builds are kept."""

    keep: Annotated[int, Field(ge=1, le=1000)]


class Settings(Model):
    """The content of `publish.toml`."""

    store: StoreSettings
    download: Download
    signing: Signing
    nightly: Nightly

    def key(self) -> str:
        """Return the fingerprint of the key that signs; raise `UserError` if it is not set."""
        return required(self.signing.key, "signing.key")


def load() -> Settings:
    """Read and check the settings.

    Raises `UserError`: the file is missing, is not TOML, or breaks the schema.
    """
    return toml.load(Path(os.environ.get(VARIABLE) or PUBLISH_TOML), Settings)


def clean_url(url: str) -> str:
    """Return a URL without the user's name, password or token in it."""
    return re.sub(r"^(\w+://)[^@/]*@", r"\1", url.strip())


def fingerprint(text: str) -> str:
    """Return a fingerprint, given as people copy it, as 40 capital hexadecimal digits.

    Raises `UserError`: it is not a fingerprint.
    """
    found = text.replace(" ", "").upper().removeprefix("0X")
    if not re.fullmatch(r"[0-9A-F]{40}", found):
        raise UserError(f"{text!r}: is not a fingerprint; expected: 40 hexadecimal digits")
    return found


def required(value: str, key: str) -> str:
    """Return the value of a setting that may be empty in the file, but that is needed now.

    Raises `UserError`, which names `key`: it is empty.
    """
    if not value:
        path = os.environ.get(VARIABLE) or PUBLISH_TOML
        raise UserError(
            f"{path}: {key}: is empty; write its value there, see docs/maintainer-guide.md"
        )
    return value
