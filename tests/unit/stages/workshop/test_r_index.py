"""The repository for R: what PACKAGES says, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tarfile
from pathlib import Path

import pytest

from hyraxvm.core.errors import Failure
from hyraxvm.stages.workshop import packages, r_index
from tests.unit.stages.workshop.r_packages import files, pack

NEEDS = "Depends: R (>= 3.5),\n        grid.two (>= 1.0),utils\nImports: methods\n"


def two(folder: Path) -> list[Path]:
    """Pack a package, and one that needs it, under the names of Debian's source packages."""
    folder.mkdir()
    return [
        pack(folder / "r-cran-needs", files("needs", 7, NEEDS, "0.10")),
        pack(folder / "r-cran-grid.two", files("grid.two", 5)),
    ]


def test_packages_has_what_r_needs_to_know(tmp_path: Path) -> None:
    needs, grid = two(tmp_path / "from")
    versions = packages.index_r([needs, grid], tmp_path / "r")
    assert versions == {"grid.two": "1.0-2", "needs": "0.10"}
    folder = tmp_path / "r/src/contrib"
    sums = {path: hashlib.md5(path.read_bytes()).hexdigest() for path in (needs, grid)}
    assert (folder / "PACKAGES").read_text() == (
        "Package: grid.two\n"
        "Version: 1.0-2\n"
        "License: GPL (>= 3)\n"
        f"MD5sum: {sums[grid]}\n"
        "NeedsCompilation: no\n"
        "\n"
        "Package: needs\n"
        "Version: 0.10\n"
        "Depends: R (>= 3.5), grid.two (>= 1.0),utils\n"
        "Imports: methods\n"
        "License: GPL (>= 3)\n"
        f"MD5sum: {sums[needs]}\n"
        "NeedsCompilation: no\n"
    )
    assert gzip.decompress((folder / "PACKAGES.gz").read_bytes()) == (
        (folder / "PACKAGES").read_bytes()
    )
    assert (folder / "grid.two_1.0-2.tar.gz").read_bytes() == grid.read_bytes()
    assert (folder / "needs_0.10.tar.gz").read_bytes() == needs.read_bytes()
    page = (tmp_path / "r/index.html").read_text()
    assert '<a href="src/contrib/grid.two_1.0-2.tar.gz">grid.two_1.0-2.tar.gz</a>' in page


def test_the_same_tarballs_give_the_same_bytes(tmp_path: Path) -> None:
    tarballs = two(tmp_path / "from")
    r_index.make(tarballs, tmp_path / "one")
    for path in tarballs:
        os.utime(path, (0, 0))
    r_index.make(reversed(tarballs), tmp_path / "other")

    def content(folder: Path) -> dict[str, bytes]:
        found = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}

    assert content(tmp_path / "one") == content(tmp_path / "other")
    assert len(content(tmp_path / "one")) == 4


def test_a_package_that_needs_another_one_is_refused_without_it(tmp_path: Path) -> None:
    needs, _ = two(tmp_path / "from")
    with pytest.raises(Failure, match=r"^R package needs needs 'grid\.two', which is not here; "):
        r_index.make([needs], tmp_path / "r")


def test_a_package_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    tarballs = [pack(tmp_path / name, files("grid", 1)) for name in ("one", "two")]
    with pytest.raises(Failure, match=r"^two: R package grid is in two tarballs$"):
        r_index.make(tarballs, tmp_path / "r")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("Package: grid\n", "", "DESCRIPTION has no field Package"),
        ("Version: 1.0-2\n", "", "DESCRIPTION has no field Version"),
        ("License: GPL (>= 3)\n", "License:\n", "DESCRIPTION has no field License"),
        ("Package: grid", "Package: ../x", "Package: '../x': expected: the name of the top folder"),
        ("1.0-2", "1.0/../..", "Version: '1.0/../..': expected: numbers with dots or hyphens"),
        ("Title:", "Package: other\nTitle:", "DESCRIPTION has the field Package twice"),
        ("Title: A Grid", "no field", "DESCRIPTION: 'no field': expected: FIELD: VALUE"),
    ],
)
def test_a_wrong_description_is_refused(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    content = files("grid", 1)
    text = content["grid/DESCRIPTION"].decode()
    assert before in text
    content["grid/DESCRIPTION"] = text.replace(before, after, 1).encode()
    with pytest.raises(Failure, match=f"^r-cran-grid: .*{re.escape(message)}") as caught:
        r_index.describe(pack(tmp_path / "r-cran-grid", content))
    assert "\n" not in str(caught.value)


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "r-cran-grid", files("grid", 1))
    content = bytearray(gzip.decompress(path.read_bytes()))
    at = content.index(b"grid/R/size.R\0")
    content[at + 150] ^= 1  # in the checksum
    path.write_bytes(gzip.compress(content))
    with pytest.raises(Failure, match=f"damaged one: the header at byte {at} is damaged"):
        r_index.describe(path)


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (member("other/file"), "2 top folders; expected: one"),
        (member("grid/../../file"), "'grid/../../file': expected: a path below one folder"),
        (member("/etc/file"), "'/etc/file': expected: a path below one folder"),
        (member("grid/link", tarfile.SYMTYPE, "/etc/passwd"), "expected: files and folders"),
        (member("grid/device", tarfile.CHRTYPE), "expected: files and folders"),
        (member("grid/DESCRIPTION"), "expected: one file grid/DESCRIPTION of at most 65536 bytes"),
    ],
)
def test_a_hostile_tarball_is_refused(tmp_path: Path, other: tarfile.TarInfo, message: str) -> None:
    tarball = pack(tmp_path / "r-cran-grid", files("grid", 1), other)
    with pytest.raises(Failure, match=f"^r-cran-grid: .*{re.escape(message)}"):
        r_index.describe(tarball)


def test_a_tarball_without_a_description_or_with_a_long_one_is_refused(tmp_path: Path) -> None:
    content = files("grid", 1)
    long = content["grid/DESCRIPTION"] + b"Note: " + b"x" * r_index.MAX_DESCRIPTION
    for each in ({"grid/R/size.R": b""}, {"grid/DESCRIPTION": long}):
        with pytest.raises(Failure, match=r"^r-cran-grid: expected: one file grid/DESCRIPTION of"):
            r_index.describe(pack(tmp_path / "r-cran-grid", each))


def test_a_tarball_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    big = {**files("grid", 1), "grid/zeros": bytes(r_index.MAX_BYTES)}
    tarball = pack(tmp_path / "r-cran-grid", big)
    assert tarball.stat().st_size < 100_000
    with pytest.raises(Failure, match=r"^r-cran-grid: unpacked it has more than 16777216 bytes$"):
        r_index.describe(tarball)


def test_a_tarball_of_too_many_members_is_refused(tmp_path: Path) -> None:
    content = {f"grid/{number}": b"" for number in range(r_index.MAX_MEMBERS + 1)}
    with pytest.raises(Failure, match=r"^r-cran-grid: more than 1000 members$"):
        r_index.describe(pack(tmp_path / "r-cran-grid", content))


@pytest.mark.parametrize("how", ["cut off", "no gzip", "no tar", "empty", "wrong sum"])
def test_a_damaged_tarball_is_refused(tmp_path: Path, how: str) -> None:
    whole = pack(tmp_path / "r-cran-grid", files("grid", 1)).read_bytes()
    damaged = {
        "cut off": whole[:-20],
        "no gzip": b"PK" + whole,
        "no tar": gzip.compress(b"no tar" * 200),
        "empty": b"",
        "wrong sum": whole[:-8] + bytes(8),
    }[how]
    (tmp_path / "r-cran-grid").write_bytes(damaged)
    with pytest.raises(Failure, match=r"^r-cran-grid: not a tar\.gz, or a damaged one: ") as caught:
        r_index.describe(tmp_path / "r-cran-grid")
    assert "\n" not in str(caught.value)
