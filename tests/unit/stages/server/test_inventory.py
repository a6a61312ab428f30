"""Package lists of images, from databases that dpkg and rpm themselves have written."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hyraxvm.config import images
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure
from hyraxvm.stages.server import inventory, oci
from hyraxvm.stages.server import stage as server
from hyraxvm.stages.server.image_tree import Tree, merge
from tests.unit.stages.server.image_maker import TAG, Entry, link, make_image, program, write_layer

SPEC = """\
Name: {name}
Version: {version}
Release: {release}
{epoch}
Summary: x
License: MIT
BuildArch: noarch
%description
x
%files
"""
ROCKY = Entry("etc/os-release", b'NAME="Rocky Linux"\nVERSION_ID="9.5"\nID="rocky"\n')
INSTALLED = [
    ("bes", "3.22.0", "12.el9", ""),
    ("tzdata-java", "2025b", "1.el9", "Epoch: 2"),
]
WANTED = {"rpm/rocky/bes": "3.22.0-12.el9", "rpm/rocky/tzdata-java": "2:2025b-1.el9"}
STATUS = """\
Package: libc6
Status: install ok installed
Version: 2.36-9

Package: gone
Status: deinstall ok config-files
Version: 1.0
"""


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a database of rpm with packages that rpmbuild has built."""
    work = tmp_path_factory.mktemp("rpm")
    folder = work / "db"
    run("rpm", "--dbpath", str(folder), "--initdb")
    for name, version, release, epoch in INSTALLED:
        spec = work / f"{name}.spec"
        spec.write_text(SPEC.format(name=name, version=version, release=release, epoch=epoch))
        run("rpmbuild", "-bb", "--define", f"_topdir {work}", str(spec))
    found = map(str, work.glob("RPMS/noarch/*.rpm"))
    run("rpm", "--dbpath", str(folder), "--justdb", "--nodeps", "--install", *found)
    # The database has the keys of packages, too, as packages called gpg-pubkey.
    keys = work / "keys"
    keys.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(keys), "--batch", "--passphrase", ""]
    run(*gpg, "--quick-generate-key", "packager@example.org", "rsa2048", "sign", "never")
    run(*gpg, "--armor", "--output", str(work / "key.asc"), "--export")
    run("rpm", "--dbpath", str(folder), "--import", str(work / "key.asc"))
    run("gpgconf", "--homedir", str(keys), "--kill", "all")
    assert "gpg-pubkey-" in run("rpm", "--dbpath", str(folder), "--query", "--all")
    assert (folder / "rpmdb.sqlite").stat().st_size > 0
    return folder


def files(folder: Path, place: str) -> list[Entry]:
    return [Entry(f"{place}/{p.name}", p.read_bytes()) for p in folder.iterdir() if p.is_file()]


def tree(tmp_path: Path, entries: list[Entry]) -> Tree:
    return merge([write_layer(tmp_path / "layer", entries)])


@pytest.mark.parametrize(
    "arrange",
    [
        lambda database: files(database, "var/lib/rpm"),
        lambda database: files(database, "usr/lib/sysimage/rpm"),
        # As on Fedora: the old place is a link to the new one.
        lambda database: [
            *files(database, "usr/lib/sysimage/rpm"),
            link("var/lib/rpm", "../../usr/lib/sysimage/rpm"),
        ],
        lambda database: [*files(database, "var/lib/rpm"), Entry("usr/lib/sysimage/rpm/.keep")],
    ],
    ids=["el9", "new place", "link", "empty place"],
)
def test_rpms_database_is_read(
    database: Path, tmp_path: Path, arrange: Callable[[Path], list[Entry]]
) -> None:
    found = inventory.packages(tree(tmp_path, [ROCKY, *arrange(database)]), tmp_path / "scratch")
    assert found == WANTED


def test_a_damaged_database_is_no_empty_one(database: Path, tmp_path: Path) -> None:
    content = (database / "rpmdb.sqlite").read_bytes()
    hash_file = bytes(12) + bytes.fromhex("61150600 09000000") + bytes(4076)
    for name, damaged in (
        ("rpmdb.sqlite", b"x" * 4096 + content[4096:]),
        ("Packages", hash_file),  # rpm only warns, and exits with 0
    ):
        entry = Entry(f"var/lib/rpm/{name}", damaged)
        with pytest.raises(Failure, match="rpm"):
            inventory.packages(tree(tmp_path, [ROCKY, entry]), tmp_path / f"scratch {name}")


def test_dpkgs_apks_and_pythons_are_read(tmp_path: Path) -> None:
    entries = [
        Entry("etc/os-release", b"ID=debian\n"),
        Entry("var/lib/dpkg/status", STATUS.encode()),
        # As in images without dpkg.
        Entry("var/lib/dpkg/status.d/tzdata", b"Package: tzdata\nVersion: 2024a-0\n"),
        Entry("var/lib/dpkg/status.d/tzdata.md5sums", b"0123  usr/share/zoneinfo/UTC\n"),
        Entry("lib/apk/db/installed", b"C:Q1\nP:musl\nV:1.2.5-r0\n\nP:busybox\nA:x\nV:1.36-r2\n"),
        Entry("usr/lib/python3/site-packages/numpy-2.3.5.dist-info/METADATA"),
    ]
    assert inventory.packages(tree(tmp_path, entries), tmp_path) == {
        "apk/debian/busybox": "1.36-r2",
        "apk/debian/musl": "1.2.5-r0",
        "deb/debian/libc6": "2.36-9",
        "deb/debian/tzdata": "2024a-0",
        "pypi/numpy": "2.3.5",
    }


def test_who_makes_packages_goes_by_their_kind_where_no_release_is_named(tmp_path: Path) -> None:
    entries = [
        Entry("var/lib/dpkg/status", STATUS.encode()),
        Entry("lib/apk/db/installed", b"P:musl\nV:1.2.5-r0\n"),
    ]
    assert list(inventory.packages(tree(tmp_path, entries), tmp_path)) == [
        "apk/alpine/musl", "deb/debian/libc6",
    ]  # fmt: skip


def test_an_image_without_any_has_none(tmp_path: Path) -> None:
    # A file in the image's root that is called like one of rpm's is not rpm's.
    entries = [Entry("opt/serve"), Entry("Packages", b"of another kind")]
    assert inventory.packages(tree(tmp_path, entries), tmp_path) == {}


def test_the_list_is_that_of_the_image_before_it_is_trimmed(
    results: StageCache, database: Path, tmp_path: Path
) -> None:
    layer = [ROCKY, *files(database, "var/lib/rpm"), program("opt/serve")]
    layout = make_image(tmp_path / "image", [layer], "--config.entrypoint=/opt/serve")
    reference = f"oci:{layout}:{TAG}"
    known = images.recipe(images.load(), "nfs", "dapdir", reference, oci.local_digest(reference))
    served = images.Server(
        title="x", source="docker://made/x:1", data_root="/data", port=80, health_path="/x",
        trim=["/var/lib/rpm"],
    )  # fmt: skip
    chosen = known.model_copy(update={"server_name": "x", "server": served})
    made = server.build(results, chosen, server.key(chosen), tmp_path / "log", lambda line: None)
    assert made.image.packages == WANTED
    assert made.image.trimmed[0].bytes > 100_000
    listed = subprocess.run(
        ["unsquashfs", "-l", made.squashfs], capture_output=True, text=True, check=True
    )
    assert "var/lib/rpm" not in listed.stdout
    assert sorted(path.name for path in made.squashfs.parent.iterdir()) == [
        "server.json", "server.squashfs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("package", "version", "wanted"),
    [
        ("rpm/rocky/bes", "3.22.0-12.el9", "pkg:rpm/rocky/bes@3.22.0-12.el9"),
        ("rpm/rocky/tz", "2:2025b-1.el9", "pkg:rpm/rocky/tz@2025b-1.el9?epoch=2"),
        ("deb/debian/x", "1:2.0-1", "pkg:deb/debian/x@1:2.0-1"),
        ("pypi/numpy", "2.3.5", "pkg:pypi/numpy@2.3.5"),
    ],
)
def test_package_urls(package: str, version: str, wanted: str) -> None:
    assert inventory.purl(package, version).to_string() == wanted
