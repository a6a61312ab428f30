"""Downloads from real servers: the file that was requested, whole, even if the network fails."""

from __future__ import annotations

import base64
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.publish.site import Site
from hyraxvm.tools import clean
from tests.unit.publish.downloads import behind, get, left
from tests.unit.release.gpgkeys import make_key
from tests.unit.release.shop import NAME, Shop, assemble, make_image, workspace
from tests.unit.store.loopback import Quiet, Rclone, serving


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
    assert len(left(to)) == 3  # no partial file remains
    # The second time nothing is transferred, and a file that differs is not overwritten.
    before = nightly.stat().st_mtime_ns
    assert get(url, key, to, version="nightly").stat().st_mtime_ns == before
    nightly.write_bytes(b"mine")
    with pytest.raises(UserError, match="has other content; move it away"):
        get(url, key, to, version="nightly")
    assert nightly.read_bytes() == b"mine"


@pytest.mark.parametrize("place", ["artifacts/downloads", "elsewhere"])
def test_nobody_cleans_up_under_a_download(
    own: tuple[str, Path], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    here = workspace(tmp_path / "artifacts")
    tried: list[str] = []
    fetch = Site.fetch

    def meanwhile(*words: Any) -> str:
        try:
            tried.extend(clean.clean(here, with_cache=False))
        except UserError as error:
            tried.append(str(error))
        return fetch(*words)

    monkeypatch.setattr(Site, "fetch", meanwhile)
    (tmp_path / "artifacts").mkdir()
    got = get(own[0], key, tmp_path / place, here.artifacts)
    assert got.read_bytes() == (own[1] / "releases/1.0.0" / got.name).read_bytes()
    if place == "elsewhere":
        assert tried == ["nothing to remove"]
        return
    assert tried == ["a download runs in this checkout; wait for it, or end it"]
    assert clean.clean(here, with_cache=False) == [f"removed {got.parent.parent}"]


def test_it_is_unpacked_on_request(own: tuple[str, Path], key: str, tmp_path: Path) -> None:
    made = get(own[0], key, tmp_path / "to", unpack=True)
    assert made == tmp_path / "to" / "1.0.0" / NAME
    with zipfile.ZipFile(made.with_name(f"{NAME}.zip")) as archive:
        assert (made / "disk").read_bytes() == archive.read(f"{NAME}/disk")
    with pytest.raises(UserError, match="exists already; move it away to unpack again"):
        get(own[0], key, tmp_path / "to", unpack=True)
    with pytest.raises(UserError, match="format 'ova' is not packed; leave --unpack out"):
        get(own[0], key, tmp_path / "to", kind="ova", unpack=True)


def test_from_a_store_without_credentials(
    site: Path, key: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Rclone(site.parent)  # without --auth-key rclone needs no credentials
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
    size = (files / "releases/1.0.0" / f"{NAME}.qcow2").stat().st_size
    asked: list[str] = []
    with behind(web, url, ("drop", 9_000), ("drop", 9_000)) as site:
        site._session.hooks["response"].append(
            lambda answer, **more: asked.append(answer.request.headers.get("Range", ""))
        )
        got = get(site, key, tmp_path, kind="qcow2")
    assert got.read_bytes() == (files / "releases/1.0.0" / got.name).read_bytes()
    begins = [int(one.removeprefix("bytes=").removesuffix("-")) for one in asked if one]
    assert len(begins) == 2
    assert 0 < begins[0] < begins[1] < size


def test_a_server_that_is_gone_is_one_line_and_the_part_stays(
    own: tuple[str, Path], key: str, tmp_path: Path, web: Rclone, quick: None
) -> None:
    url, files = own
    with (
        behind(web, url, ("drop", 9_000), *[("drop", 0)] * 50) as site,
        pytest.raises(Failure, match="type the same command again to go on"),
    ):
        get(site, key, tmp_path, kind="qcow2")
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
    with pytest.raises(UserError, match=f"index.json: is signed by key {newer}, not by {key}"):
        get(web.url, key, to, version="1.0.0")
    got = get(web.url, newer, to, None, key, version="1.0.0")
    assert got.read_bytes() == (folder / f"{NAME}.zip").read_bytes()
    web.kill()


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
    with pytest.raises(UserError, match="cannot be read as a URL") as wrong:
        get("http://me:hush@127.0.0.1:99999/vm", key, tmp_path)
    for raised in (refused, gone, wrong):
        assert "hush" not in str(raised.value)


def test_curl_gpg_and_sha256sum_do_it_too(own: tuple[str, Path], key: str, tmp_path: Path) -> None:
    """Run the commands of docs/download.md."""
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
