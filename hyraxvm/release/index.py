"""`index.json` and each release's `release.json`: what is published, in a documented schema.

docs/index.schema.json is made from these models.  Readers ignore keys that they do not know.
Increment `SCHEMA` for a change that older readers would misinterpret.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from hyraxvm.core.errors import UserError

SCHEMA: Final = 1
INDEX: Final = "index.json"
RELEASE: Final = "release.json"
NOTES: Final = "RELEASE-NOTES.md"
PROVENANCE: Final = "provenance.intoto.json"
TEXT: Final = 500  # characters that a text may have

RELEASE_VERSION: Final = r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}(-rc[0-9]{1,9})?"
NIGHTLY_VERSION: Final = r"[0-9]{8}(\.[0-9]{1,9})?"
# Digits are spelt out: for pydantic `\d` is a digit of any script, for a JSON schema it is not.
DATE: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
TIME: Final = r"[0-9]{2}:[0-9]{2}:[0-9]{2}"

_SIGNATURE: Final = re.compile(rb'("signature": )"(?:[A-Za-z0-9+/=:. -]|\\n)*"')

# They become file names on users' disks.
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,199}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, StringConstraints(pattern=rf"^({RELEASE_VERSION}|{NIGHTLY_VERSION})$")]
Path = Annotated[str, StringConstraints(pattern=r"^(releases|nightlies)/[0-9][0-9a-z.-]*$")]
Date = Annotated[str, StringConstraints(pattern=rf"^{DATE}T{TIME}Z$")]
Text = Annotated[str, StringConstraints(max_length=TEXT)]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9A-F]{40}$")]


class Entry(BaseModel):
    """A table of the index."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class File(Entry):
    """One file of an image; `size` is in bytes."""

    name: FileName
    format: Text
    size: Annotated[int, Field(ge=0)]
    sha256: Digest


class PublishedServer(Entry):
    """The data server in an image."""

    name: Text
    version: Text
    title: Text


class PublishedImage(Entry):
    """One virtual machine in all its formats; `inputs` is a digest of what it was made from."""

    image: Text
    title: Text
    access: Text
    name: FileName
    base: Text
    arch: Text
    server: PublishedServer
    inputs: Digest
    files: list[File]
    manifest: FileName
    sbom: FileName


class Release(Entry):
    """One release or nightly, in the folder `path` of the bucket, signed by the OpenPGP key `key`.

    `withdrawn` has the reason why users should not take it any more.
    """

    version: Version
    kind: Literal["release", "nightly"]
    path: Path
    date: Date
    revision: Text
    key: Fingerprint
    images: Annotated[list[PublishedImage], Field(min_length=1)]
    withdrawn: Text = ""


class Latest(Entry):
    """The newest version of each kind; empty if there is none."""

    release: Text = ""
    nightly: Text = ""


class Index(Entry):
    """The whole file, newest release first; `key` is the key that now signs, by its fingerprint.

    `date` is when it was signed.  `signature` is over the file's bytes with this text empty.
    """

    schema_: Annotated[int, Field(alias="schema", ge=1)] = SCHEMA
    key: Fingerprint
    date: Date = "1970-01-01T00:00:00Z"
    latest: Latest = Latest()
    releases: list[Release] = []
    signature: Annotated[str, StringConstraints(max_length=10_000)] = ""

    def find(self, version: str) -> Release | None:
        """Return the release or nightly with this version."""
        return next((found for found in self.releases if found.version == version), None)

    def available(self, kind: str) -> list[Release]:
        """Return the releases or the nightlies that are not withdrawn, newest first."""
        return [found for found in self.releases if found.kind == kind and not found.withdrawn]


def kind(version: str) -> Literal["release", "nightly"]:
    """Return what kind of release a version is of; raise `UserError` if it is not a version."""
    if re.fullmatch(RELEASE_VERSION, version, re.ASCII):
        return "release"
    if re.fullmatch(NIGHTLY_VERSION, version, re.ASCII):
        return "nightly"
    raise UserError(
        f"{version!r}: is not a version; expected: 1.2.3 or 1.2.3-rc1 for a release, 20260131 "
        "or 20260131.2 for a nightly"
    )


def path(version: str) -> str:
    """Return the folder of a version in the bucket."""
    return f"{'releases' if kind(version) == 'release' else 'nightlies'}/{version}"


def key_path(fingerprint: str) -> str:
    """Return where a public key is in the bucket; releases signed by an older key keep that key."""
    return f"keys/{fingerprint}.asc"


def order(version: str) -> tuple[list[int], int]:
    """Return a key that sorts versions by age; `1.2.3-rc1` comes before `1.2.3`."""
    number, _, candidate = version.partition("-rc")
    return [int(part) for part in number.split(".")], int(candidate) if candidate else 10**9


def make_index(key: str, releases: list[Release]) -> Index:
    """Return an index of these releases, sorted, with the latest of each kind."""
    found = sorted(releases, key=lambda one: (one.kind == "release", order(one.version)))[::-1]
    sorted_ = Index(key=key, releases=found)
    stable = [one.version for one in sorted_.available("release") if "-rc" not in one.version]
    nightly = [one.version for one in sorted_.available("nightly")]
    latest = Latest(release=next(iter(stable), ""), nightly=next(iter(nightly), ""))
    return sorted_.model_copy(update={"latest": latest})


def dump(entry: Entry) -> bytes:
    """Return JSON, the same for the same content."""
    return (json.dumps(entry.model_dump(by_alias=True), indent=1) + "\n").encode()


def signed_part(data: bytes, where: str) -> bytes:
    """Return the bytes of an index that its signature is over.

    Raises `UserError`: it has no place for a signature, or several.
    """
    found, count = _SIGNATURE.subn(rb'\1""', data)
    if count != 1:
        raise UserError(f"{where}: is not signed; do not use what it names")
    return found


def read_index(data: bytes, where: str) -> Index:
    """Read an index; whether it is signed is not checked.

    Raises `UserError`: it is not an index, is damaged, or is for newer programs.
    """
    found: Index = _read(Index, data, where)
    if found.schema_ > SCHEMA:
        raise UserError(
            f"{where}: has schema {found.schema_}, this program knows {SCHEMA}; get a newer one"
        )
    return found


def read_release(data: bytes, where: str) -> Release:
    """Read a `release.json`; raise `UserError` if it is something else, or damaged."""
    found: Release = _read(Release, data, where)
    return found


def json_schema() -> str:
    """Return the content of docs/index.schema.json."""
    return json.dumps(Index.model_json_schema(by_alias=True), indent=1) + "\n"


def _read(model: type[Entry], data: bytes, where: str) -> Any:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise UserError(
            f"{where}: is not a valid {model.__name__.lower()}: {place}: {fault['msg']}"
        ) from None
