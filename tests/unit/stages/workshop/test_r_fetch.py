"""Sources of R packages come from a signed archive; here it is a small one, on the disk."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyraxvm.config import images
from hyraxvm.config.bases import Keyring
from hyraxvm.core import cache
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure
from hyraxvm.stages.workshop import r_fetch, r_index
from tests.unit.release.gpgkeys import gpg, keyring, make_key
from tests.unit.stages.workshop.r_packages import files, pack

MINE = images.recipe(images.load(), "workshop", "dapdir")
POOL = "pool/main/r/r-cran-grid"
SOURCES = """\
Package: r-cran-grid
Binary: r-cran-grid
Version: 1.0-2-1
Format: 3.0 (quilt)
Directory: {pool}
Files:
 {md5} {size} {name}
Checksums-Sha256:
 {sha256} {size} {name}
"""
RELEASE = """\
Origin: Debian
Suite: stable
Codename: trixie
Date: Thu, 01 Jan 2026 00:00:00 UTC
Architectures: amd64
Components: main
SHA256:
 {sha256} {size} main/source/Sources
"""


class Archive:
    """A Debian archive with one source package, and the public keys of whoever signs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tarball = folder / POOL / "r-cran-grid_1.0-2.orig.tar.gz"
        self.tarball.parent.mkdir(parents=True)
        pack(self.tarball, files("grid", 5))
        self.digest = cache.file_digest(self.tarball)
        content = self.tarball.read_bytes()
        sources = SOURCES.format(
            pool=POOL,
            name=self.tarball.name,
            size=len(content),
            md5=hashlib.md5(content).hexdigest(),
            sha256=self.digest,
        ).encode()
        lists = folder / "dists/trixie"
        (lists / "main/source").mkdir(parents=True)
        (lists / "main/source/Sources").write_bytes(sources)
        digest = hashlib.sha256(sources).hexdigest()
        (lists / "Release").write_text(RELEASE.format(sha256=digest, size=len(sources)))
        self.signer = make_key("archive@example.org")
        signed = ("--output", str(lists / "InRelease"), "--clear-sign", str(lists / "Release"))
        gpg("--local-user", self.signer, *signed)
        self.keys = self.export(self.signer)

    def export(self, key: str) -> Path:
        path = self.folder / f"{key}.gpg"
        gpg("--output", str(path), "--export", key)
        return path

    def recipe(self, keys: Path, digest: str, method: str = "file") -> images.Recipe:
        """Return the workshop's recipe with this archive in the place of Debian's."""
        assert MINE.addition is not None
        assert MINE.r_base is not None
        wanted = images.SourcesForR(base="debian-13", packages={"r-cran-grid": digest})
        clients = MINE.addition.clients.model_copy(update={"r": wanted})
        there = {
            "mirror": f"{method}://{self.folder}",
            "keyring": Keyring(file=str(keys), package="none"),
        }
        return MINE.model_copy(
            update={
                "addition": MINE.addition.model_copy(update={"clients": clients}),
                "r_base": MINE.r_base.model_copy(update=there),
            }
        )


@pytest.fixture
def archive() -> Iterator[Archive]:
    # Not in pytest's folder, which other users cannot read: mmdebstrap may run as one.
    with keyring(), tempfile.TemporaryDirectory(prefix="archive-") as name:
        Path(name).chmod(0o755)
        yield Archive(Path(name))


def fetch(recipe: images.Recipe, folder: Path) -> list[Path]:
    return r_fetch.fetch(StageCache(folder / "cache"), recipe, folder / "log", print)


@pytest.mark.parametrize("method", ["file", "copy"])
def test_the_tarball_is_fetched_once(archive: Archive, tmp_path: Path, method: str) -> None:
    recipe = archive.recipe(archive.keys, archive.digest, method)
    (fetched,) = fetch(recipe, tmp_path)
    assert cache.file_digest(fetched) == archive.digest
    assert r_index.make([fetched], tmp_path / "r") == {"grid": "1.0-2"}
    # The archive is not asked again.
    archive.tarball.unlink()
    assert fetch(recipe, tmp_path) == [fetched]


def test_an_archive_that_others_have_signed_is_refused(archive: Archive, tmp_path: Path) -> None:
    others = archive.export(make_key("other@example.org"))
    with pytest.raises(Failure, match=rf"NO_PUBKEY {archive.signer[-16:]}"):
        fetch(archive.recipe(others, archive.digest), tmp_path)


def test_a_tarball_that_the_signed_list_does_not_name_is_refused(
    archive: Archive, tmp_path: Path
) -> None:
    content = archive.tarball.read_bytes()
    archive.tarball.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    digest = cache.file_digest(archive.tarball)
    with pytest.raises(Failure, match="Hash Sum mismatch"):
        fetch(archive.recipe(archive.keys, digest), tmp_path)


def test_another_version_than_the_table_names_is_refused(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        fetch(archive.recipe(archive.keys, "0" * 64), tmp_path)
    assert str(caught.value) == (
        "r-cran-grid: the archive of debian-13 has r-cran-grid_1.0-2.orig.tar.gz: "
        f"{archive.digest}; expected: the SHA-256 in images.toml, "
        f"addition.*.clients.r.packages: {'0' * 64}"
    )


def test_the_table_names_ncdf4_of_a_base_that_has_been_tried() -> None:
    table = images.load()
    wanted = table.addition["workshop"].clients.r
    assert list(wanted.packages) == ["r-cran-ncdf4"]
    assert not table.base[wanted.base].untried
    assert MINE.r_base == table.base[wanted.base]
