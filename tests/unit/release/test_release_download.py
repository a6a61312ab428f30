"""Downloads from real servers: resumed, and refused where anything differs from what was signed."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import Proxy
from gpgkeys import make_key
from loopback import Quiet, Rclone, serving
from shop import NAME, Shop, assemble, bare, make_image, sign, workshop

from hyraxvm import download, housekeeping, index, publishing, signing
from hyraxvm.errors import Failure, UserError


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, server: Rclone, key: str, folder: Path) -> Path:
    """What was published, as files."""
    made = Shop(server, f"downloads-{os.getpid()}", key)
    made.send(folder)
    work = tmp_path_factory.mktemp("nightly")
    nightly = assemble(work, "20260102", [make_image(work, seed=b"n")], key)
    made.send(nightly)
    return made.folder


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    """A web server that knows ranges."""
    made = Rclone(tmp_path_factory.mktemp("web") / "www", kind="http")
    yield made
    made.kill()


@pytest.fixture
def own(site: Path, web: Rclone, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL and the folder of a copy that a test may change."""
    name = f"{tmp_path.parent.name}-{tmp_path.name}"
    shutil.copytree(site / "vm", web.folder / name)
    time.sleep(0.02)  # for what rclone remembers of a folder, see loopback.py
    yield f"{web.url}/{name}", web.folder / name


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAIT", 0.001)


def get(url: str, key: str, to: Path, **more: Any) -> Path:
    time.sleep(0.02)  # for what rclone remembers of a folder, see loopback.py
    store = publishing.load().store
    wanted = {"image": "nfs", "version": "release", "kind": "vmx", "unpack": False, **more}
    return download.download(
        download.Site(url, store), key, folder=to, say=lambda line: None, **wanted
    )


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_newest_release_a_nightly_and_a_version(
    own: tuple[str, Path], key: str, folder: Path, tmp_path: Path
) -> None:
    url, _ = own
    to = tmp_path / "to"
    got = get(url, key, to)
    assert got == to / "1.0.0" / f"{NAME}.zip"
    assert got.read_bytes() == (folder / f"{NAME}.zip").read_bytes()
    got = get(url, key, to, image="smb", kind="ova", version="1.0.0")
    assert got.read_bytes() == (folder / got.name).read_bytes()
    nightly = get(url, key, to, version="nightly")
    assert nightly.parent.name == "20260102"
    assert nightly.read_bytes() != (folder / f"{NAME}.zip").read_bytes()
    assert len(left(to)) == 3  # nothing half-made
    # Again: nothing is transferred, and what differs is not overwritten.
    before = nightly.stat().st_mtime_ns
    assert get(url, key, to, version="nightly").stat().st_mtime_ns == before
    nightly.write_bytes(b"mine")
    with pytest.raises(UserError, match="is there with another content; move it away"):
        get(url, key, to, version="nightly")
    assert nightly.read_bytes() == b"mine"


@pytest.mark.parametrize("place", ["artifacts/downloads", "elsewhere"])
def test_nobody_cleans_up_under_a_download(
    own: tuple[str, Path], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    tried: list[str] = []
    fetch = download.Site.fetch

    def meanwhile(*words: Any) -> str:
        try:
            tried.extend(housekeeping.clean(with_cache=False))
        except UserError as error:
            tried.append(str(error))
        return fetch(*words)

    monkeypatch.setattr(download.Site, "fetch", meanwhile)
    (tmp_path / "artifacts").mkdir()
    with workshop(tmp_path / "artifacts"):
        got = get(own[0], key, tmp_path / place)
        assert got.read_bytes() == (own[1] / "releases/1.0.0" / got.name).read_bytes()
        if place == "elsewhere":
            assert tried == ["nothing to remove"]
            return
        assert tried == ["a download runs in this checkout; wait for it, or end it"]
        assert housekeeping.clean(with_cache=False) == [f"removed {got.parent.parent}"]


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
        told = r"zip: is there with another content; move it away"
    with pytest.raises(UserError, match=told):
        get(own[0], key, to)


def test_it_is_unpacked_on_request(own: tuple[str, Path], key: str, tmp_path: Path) -> None:
    made = get(own[0], key, tmp_path / "to", unpack=True)
    assert made == tmp_path / "to" / "1.0.0" / NAME
    with zipfile.ZipFile(made.with_name(f"{NAME}.zip")) as archive:
        assert (made / "disk").read_bytes() == archive.read(f"{NAME}/disk")
    with pytest.raises(UserError, match="is there already; move it away to unpack anew"):
        get(own[0], key, tmp_path / "to", unpack=True)
    with pytest.raises(UserError, match="format 'ova' is not packed; leave --unpack out"):
        get(own[0], key, tmp_path / "to", kind="ova", unpack=True)


def test_from_a_store_without_credentials(
    site: Path, key: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Rclone(site.parent)  # without --auth-key it lets everybody in
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    got = get(f"s3://{site.name}/vm", key, tmp_path)
    server.kill()
    assert got.read_bytes() == (folder / got.name).read_bytes()


def test_a_cut_connection_is_continued_where_it_stopped(
    own: tuple[str, Path], web: Rclone, key: str, tmp_path: Path, quick: None
) -> None:
    url, files = own
    kind = "qcow2"
    size = (files / "releases/1.0.0" / f"{NAME}.qcow2").stat().st_size
    proxy = Proxy(web.port)
    asked: list[str] = []
    site = download.Site(url.replace(web.url, proxy.url), publishing.load().store)
    site._session.hooks["response"].append(
        lambda answer, **more: asked.append(answer.request.headers.get("Range", ""))
    )
    # A connection of its own for each request, so that the faults hit the file.
    site._session.headers["Connection"] = "close"
    proxy.faults = [*[("none", 0)] * 5, ("drop", 9_000), ("drop", 9_000)]
    got = download.download(
        site,
        key,
        image="nfs",
        version="release",
        kind=kind,
        folder=tmp_path,
        unpack=False,
        say=lambda line: None,
    )
    proxy.close()
    assert got.read_bytes() == (files / "releases/1.0.0" / got.name).read_bytes()
    begins = [int(one.removeprefix("bytes=").removesuffix("-")) for one in asked if one]
    assert len(begins) == 2
    assert 0 < begins[0] < begins[1] < size


def test_a_server_that_is_gone_is_one_line_and_the_part_stays(
    own: tuple[str, Path], key: str, tmp_path: Path, web: Rclone, quick: None
) -> None:
    url, files = own
    proxy = Proxy(web.port)
    proxy.faults = [*[("none", 0)] * 5, ("drop", 9_000), *[("drop", 0)] * 50]
    site = download.Site(url.replace(web.url, proxy.url), publishing.load().store)
    site._session.headers["Connection"] = "close"
    wanted = {"image": "nfs", "version": "release", "kind": "qcow2", "unpack": False}
    with pytest.raises(Failure, match="type the same command again to go on"):
        download.download(site, key, folder=tmp_path, say=print, **wanted)
    proxy.close()
    (part,) = left(tmp_path)
    assert part.endswith(".part")
    begun = (tmp_path / part).read_bytes()
    path = files / "releases/1.0.0" / f"{NAME}.qcow2"
    assert 0 < len(begun) < path.stat().st_size
    assert path.read_bytes().startswith(begun)
    assert get(url, key, tmp_path, kind="qcow2").read_bytes() == path.read_bytes()
    assert left(tmp_path) == [f"1.0.0/{NAME}.qcow2"]


def test_a_server_without_ranges_starts_again(
    own: tuple[str, Path], key: str, tmp_path: Path
) -> None:
    _, files = own
    path = files / "releases/1.0.0" / f"{NAME}.ova"
    digest = next(
        line.split()[0]
        for line in (path.parent / "SHA256SUMS").read_text().splitlines()
        if line.endswith(path.name)
    )
    part = tmp_path / "1.0.0" / f".{path.name}.{digest[:12]}.part"
    part.parent.mkdir()
    part.write_bytes(path.read_bytes()[:1000])
    with serving(files) as url:
        got = get(url, key, tmp_path, kind="ova")
    assert got.read_bytes() == path.read_bytes()


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
            "its signature is not one of key",
        ),
        ("SHA256SUMS.asc", lambda data: b"", "its signature is not one of key"),
        ("SHA256SUMS.asc", None, "the server answers 404"),
        ("release.json", lambda data: data.replace(b"dapdir", b"dipdar"), "is not the signed one"),
        ("../../keys/*.asc", lambda data: b"no key", "the key beside it is not"),
        ("../../index.json", lambda data: b"[]", "index.json: is damaged or no index"),
        ("../../index.json", lambda data: b'{"schema": 2}', "is damaged or no index: key"),
        (
            "../../index.json",
            lambda data: data.replace(b'"schema": 1', b'"schema": 2'),
            "has schema 2, this program knows 1; get a newer one",
        ),
        (
            "../../index.json",
            lambda data: data.replace(b"releases/1.0.0", b"releases/../x"),
            "index.json: is damaged",
        ),
        ("../../index.json", lambda data: b"{" * 17_000_000, "too long; allowed are"),
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
    """Both are signed; whoever signed them has signed a mistake."""
    top = web.folder / tmp_path.name
    made = bare(tmp_path / "2.0.0", key, "image.zip", b"good")
    entry = index.read_release((made / index.RELEASE).read_bytes(), "")
    (made / "image.zip").write_bytes(b"evil")
    sign(made, key)
    shutil.copytree(made, top / entry.path)
    (top / "index.json").write_bytes(index.dump(index.arranged(key, [entry])))
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
    with pytest.raises(UserError, match=r"releases/2.0.0: holds release 1.0.0; do not use"):
        get(url, key, tmp_path)


def test_another_key_is_refused(own: tuple[str, Path], key: str, tmp_path: Path) -> None:
    url, files = own
    other = make_key("Somebody else <else@example.org>")
    with pytest.raises(UserError, match=f"is signed by key {key}, not by {other}; add --key {key}"):
        get(url, other, tmp_path)
    # Signed by the wrong key, with the wrong key beside it, and even with both.
    sums = files / "releases/1.0.0/SHA256SUMS"
    signing.sign(sums, other)
    with pytest.raises(UserError, match="its signature is not one of key"):
        get(url, key, tmp_path)
    beside = files / index.key_path(key)
    beside.write_bytes(signing.public_key(key) + signing.public_key(other))
    with pytest.raises(UserError, match="its signature is not one of key"):
        get(url, key, tmp_path)
    beside.write_bytes(signing.public_key(other))
    with pytest.raises(UserError, match=f"the key beside it is not {key}"):
        get(url, key, tmp_path)
    assert left(tmp_path) == []


def test_releases_of_an_older_key_stay_within_reach(
    shop: Shop, folder: Path, key: str, tmp_path: Path
) -> None:
    shop.send(folder)
    newer = make_key("Releases from now on <now@example.org>")
    made = assemble(tmp_path, "1.1.0", [make_image(tmp_path, seed=b"newer key")], newer)
    shop.key = newer
    shop.send(made)
    shop.check()
    web = Rclone(shop.folder / "vm", kind="http")
    to = tmp_path / "to"
    got = get(web.url, newer, to)
    assert got == to / "1.1.0" / f"{NAME}.zip"
    with pytest.raises(UserError, match=rf"1.0.0: is signed by key {key}, not by {newer}; add"):
        get(web.url, newer, to, version="1.0.0")
    assert get(web.url, key, to, version="1.0.0").read_bytes() == (
        (folder / f"{NAME}.zip").read_bytes()
    )
    web.kill()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"version": "9.9.9"}, "there is no version '9.9.9'; there are: 1.0.0, 20260102"),
        ({"image": "afs"}, "1.0.0 has no image 'afs' as vmx; it has: nfs as vmx, nfs as ova"),
        ({"version": "20260102", "image": "smb"}, "has no image 'smb' as vmx"),
    ],
)
def test_what_is_not_there_is_told(
    own: tuple[str, Path], key: str, tmp_path: Path, more: dict[str, str], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        get(own[0], key, tmp_path, **more)


def test_a_withdrawn_version_is_refused(own: tuple[str, Path], key: str, tmp_path: Path) -> None:
    url, files = own
    path = files / "index.json"
    text = path.read_text().replace('"withdrawn": ""', '"withdrawn": "loses data"')
    path.write_text(text)
    with pytest.raises(UserError, match=r"1.0.0 was withdrawn: loses data; the newest is: "):
        get(url, key, tmp_path)
    found = index.read_index(text.encode(), "")
    path.write_bytes(index.dump(index.arranged(found.key, found.releases)))
    with pytest.raises(UserError, match=r"there is no release; there are: 1.0.0, 20260102"):
        get(url, key, tmp_path)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://example.org/x", "is no URL"),
        ("s3://", "is no URL; allowed are https://HOST/FOLDER and s3://BUCKET/PREFIX"),
        ("s3://Bad$Bucket/x", r"s3://Bad\$Bucket/x/: .*Invalid bucket name"),
    ],
)
def test_other_urls_are_refused(key: str, tmp_path: Path, url: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as raised:
        get(url, key, tmp_path)
    assert "\n" not in str(raised.value)


def test_a_password_in_the_url_is_used_and_never_shown(
    key: str, tmp_path: Path, quick: None
) -> None:
    asked: list[str] = []

    class Guarded(Quiet):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization", ""))
            self.send_error(403)

    with serving(tmp_path, Guarded) as web:
        url = web.replace("//", "//me:hush@") + "/vm"
        with pytest.raises(UserError, match="the server answers 403") as refused:
            get(url, key, tmp_path)
    assert asked == [f"Basic {base64.b64encode(b'me:hush').decode()}"]
    with pytest.raises(Failure, match="Connection refused") as gone:
        get(url, key, tmp_path)
    with pytest.raises(UserError, match="is no URL that can be read") as wrong:
        get("http://me:hush@127.0.0.1:99999/vm", key, tmp_path)
    for raised in (refused, gone, wrong):
        assert "hush" not in str(raised.value)


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


def test_curl_gpg_and_sha256sum_do_it_too(own: tuple[str, Path], key: str, tmp_path: Path) -> None:
    """The commands of docs/download.md."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    script = f"""
        set -eu
        curl -fsSLO --remote-name-all {own[0]}/keys/{key}.asc
        curl -fsSL -C - --remote-name-all \\
            {own[0]}/releases/1.0.0/{{{NAME}.zip,SHA256SUMS,SHA256SUMS.asc}}
        gpg --import {key}.asc
        gpg --verify SHA256SUMS.asc SHA256SUMS
        sha256sum --check --ignore-missing SHA256SUMS
    """
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "GNUPGHOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{NAME}.zip: OK\n"
    assert "Good signature" in done.stderr
