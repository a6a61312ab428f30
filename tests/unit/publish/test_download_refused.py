"""Downloads that are refused: files that differ from what was signed, or are missing."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from hyraxvm.core.errors import UserError
from hyraxvm.release import index, signing
from tests.unit.publish.downloads import get, left, sign_index
from tests.unit.release.gpgkeys import make_key
from tests.unit.release.shop import NAME, bare, sign
from tests.unit.store.loopback import Rclone


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data[:-1] + b"!", "is not what was signed .SHA-256 .*; kept as"),
        (lambda data: data[:-10], r"was cut off, \d+ bytes of \d+; kept as"),
        (lambda data: data + b"!", "is not what was signed"),
        (lambda data: b"", "was cut off, 0 bytes"),
    ],
    ids=["changed", "cut off", "longer", "empty"],
)
def test_a_file_that_is_not_the_signed_one_is_kept_aside(
    own: tuple[str, Path], key: str, tmp_path: Path, change: Any, told: str
) -> None:
    url, files = own
    path = files / "releases/1.0.0" / f"{NAME}.zip"
    good = path.read_bytes()
    path.write_bytes(change(good))
    with pytest.raises(UserError, match=told):
        get(url, key, tmp_path)
    assert left(tmp_path) == [f"1.0.0/{NAME}.zip.refused"]
    path.write_bytes(good)
    os.utime(path, (1, 1))
    assert get(url, key, tmp_path).read_bytes() == good


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (
            "SHA256SUMS",
            lambda data: data.replace(b"nfs", b"xfs"),
            "SHA256SUMS: is not what key [0-9A-F]{40} signed: it was changed",
        ),
        ("SHA256SUMS.asc", lambda data: b"", "its signature is not one of key"),
        ("SHA256SUMS.asc", None, "the server answers 404"),
        ("release.json", lambda data: data.replace(b"dapdir", b"dipdar"), "is not the signed one"),
        ("../../keys/*.asc", lambda data: b"no key", "the key beside it is not"),
        ("../../index.json", lambda data: b"[]", "index.json: is not a valid index"),
        ("../../index.json", lambda data: b'{"schema": 2}', "is not a valid index: key"),
        (
            "../../index.json",
            lambda data: data.replace(b'"schema": 1', b'"schema": 2'),
            "has schema 2, this program knows 1; get a newer one",
        ),
        (
            "../../index.json",
            lambda data: data.replace(b"releases/1.0.0", b"releases/../x"),
            "index.json: is not a valid index: releases.0.path",
        ),
        (
            "../../index.json",
            lambda data: data.replace(b"1.0.0", b"1.0.1"),
            "index.json: is not what key [0-9A-F]{40} signed: it was changed",
        ),
        (
            "../../index.json",
            lambda data: re.sub(rb'"signature": "[^"]*"', b'"signature": ""', data),
            "index.json: its signature is not one of key",
        ),
        (
            "../../index.json",
            lambda data: re.sub(rb',\n "signature": "[^"]*"', b"", data),
            "index.json: is not signed; do not use what it names",
        ),
        (
            "../../index.json",
            lambda data: data.replace(b'"signature"', b'"signature": "x", "signature"'),
            "index.json: is not signed; do not use what it names",
        ),
        ("../../index.json", lambda data: b"{" * 17_000_000, "is longer than 16777216 bytes"),
    ],
)
def test_what_is_not_signed_is_refused(
    own: tuple[str, Path], key: str, tmp_path: Path, name: str, change: Any, told: str
) -> None:
    url, files = own
    if "*" in name:
        name = f"../../keys/{key}.asc"
    path = files / "releases/1.0.0" / name
    path.write_bytes(change(path.read_bytes())) if change else path.unlink()
    with pytest.raises(UserError, match=told):
        get(url, key, tmp_path)
    assert left(tmp_path) == []


def test_a_file_without_end_does_not_fill_the_disk(
    own: tuple[str, Path], key: str, tmp_path: Path
) -> None:
    url, files = own
    path = files / "releases/1.0.0" / f"{NAME}.zip"
    good = path.read_bytes()
    path.write_bytes(good + bytes(32 * 2**20))
    with pytest.raises(UserError, match="is not what was signed"):
        get(url, key, tmp_path)
    refused = tmp_path / "1.0.0" / f"{NAME}.zip.refused"
    assert len(good) < refused.stat().st_size < len(good) + 2 * 2**20


def test_a_list_that_contradicts_the_release_is_refused(
    web: Rclone, key: str, public: bytes, tmp_path: Path
) -> None:
    """SHA256SUMS and release.json are both signed, but do not agree."""
    top = web.folder / tmp_path.name
    made = bare(tmp_path / "2.0.0", key, "image.zip", b"good")
    entry = index.read_release((made / index.RELEASE).read_bytes(), "")
    (made / "image.zip").write_bytes(b"evil")
    sign(made, key)
    shutil.copytree(made, top / entry.path)
    (top / "index.json").write_bytes(index.dump(index.make_index(key, [entry])))
    sign_index(top / "index.json", key)
    (top / "keys").mkdir()
    (top / index.key_path(key)).write_bytes(public)
    with pytest.raises(UserError, match=r"image\.zip is not in the signed list; do not use it"):
        get(f"{web.url}/{tmp_path.name}", key, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_an_old_release_under_a_newer_name_is_refused(
    own: tuple[str, Path], key: str, tmp_path: Path
) -> None:
    url, files = own
    shutil.copytree(files / "releases/1.0.0", files / "releases/2.0.0")
    text = (
        (files / "index.json").read_text().replace("1.0.0", "2.0.0").replace("dapdir2", "dapdir1")
    )
    (files / "index.json").write_text(text)
    sign_index(files / "index.json", key)
    with pytest.raises(UserError, match=r"releases/2.0.0: holds release 1.0.0; do not use"):
        get(url, key, tmp_path)


def test_another_key_is_refused(own: tuple[str, Path], key: str, tmp_path: Path) -> None:
    url, files = own
    other = make_key("Somebody else <else@example.org>")
    with pytest.raises(UserError, match=f"is signed by key {key}, not by {other}; add --key {key}"):
        get(url, other, tmp_path)
    # Signed by the wrong key; with the wrong key beside it; with both.
    sums = files / "releases/1.0.0/SHA256SUMS"
    signing.sign(sums, other)
    with pytest.raises(UserError, match=f"SHA256SUMS: its signature is not one of key {key}, but"):
        get(url, key, tmp_path)
    beside = files / index.key_path(key)
    beside.write_bytes(signing.public_key(key) + signing.public_key(other))
    with pytest.raises(UserError, match=f"SHA256SUMS: its signature is not one of key {key}"):
        get(url, key, tmp_path)
    beside.write_bytes(signing.public_key(other))
    with pytest.raises(UserError, match=f"the key beside it is not {key}"):
        get(url, key, tmp_path)
    assert left(tmp_path) == []


def test_a_withdrawn_version_is_refused(own: tuple[str, Path], key: str, tmp_path: Path) -> None:
    url, files = own
    path = files / "index.json"
    text = path.read_text().replace('"withdrawn": ""', '"withdrawn": "loses data"')
    path.write_text(text)
    sign_index(path, key)
    with pytest.raises(UserError, match=r"1.0.0 was withdrawn: loses data; the newest is: "):
        get(url, key, tmp_path)
    found = index.read_index(text.encode(), "")
    path.write_bytes(index.dump(index.make_index(found.key, found.releases)))
    sign_index(path, key)
    with pytest.raises(UserError, match=r"there is no release; there are: 1.0.0, 20260102"):
        get(url, key, tmp_path)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"version": "9.9.9"}, "there is no version '9.9.9'; there are: 1.0.0, 20260102"),
        ({"image": "afs"}, "1.0.0 has no image 'afs' as vmx; it has: nfs as vmx, nfs as ova"),
        ({"version": "20260102", "image": "smb"}, "has no image 'smb' as vmx"),
    ],
)
def test_what_is_not_there_is_told(
    own: tuple[str, Path], key: str, tmp_path: Path, more: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        get(own[0], key, tmp_path, **more)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://example.org/x", "cannot be read as a URL"),
        ("s3://", "is not a URL; expected: https://HOST/FOLDER or s3://BUCKET/PREFIX"),
        ("s3://Bad$Bucket/x", r"s3://Bad\$Bucket/x/: .*Invalid bucket name"),
    ],
)
def test_other_urls_are_refused(key: str, tmp_path: Path, url: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as raised:
        get(url, key, tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("AWS_PROFILE", "gone", r"profile \(gone\) could not be found; see .* AWS_"),
        ("AWS_ENDPOINT_URL", "no url", "Invalid endpoint: no url; see .* AWS_"),
    ],
)
def test_wrong_variables_are_told(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=told):
        get("s3://some-bucket/x", key, tmp_path)


@pytest.mark.parametrize("what", ["the folder", "the file"])
def test_what_stands_in_the_way_is_told(
    own: tuple[str, Path], key: str, tmp_path: Path, what: str
) -> None:
    to = tmp_path / "to"
    if what == "the folder":
        to.write_text("mine")
        told = r"to/1.0.0: cannot be made \(Not a directory\); name another folder with --to"
    else:
        (to / "1.0.0" / f"{NAME}.zip").mkdir(parents=True)
        told = r"zip: has other content; move it away"
    with pytest.raises(UserError, match=told):
        get(own[0], key, to)
