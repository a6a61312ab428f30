"""The zip: layout, method, and a manifest that tells whether it is up to date."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from hyraxvm import cache, package, testing
from hyraxvm.errors import Failure


def test_one_top_folder_with_deflate_and_the_builds_date(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "b.bin").write_bytes(bytes(100_000))
    for name in ("1.zip", "2.zip"):
        members = [tmp_path / "a.txt", tmp_path / "b.bin"]
        package.pack_zip(tmp_path / name, "top", members, "2026-01-02T03:04:06Z")
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["top/a.txt", "top/b.bin"]
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_DEFLATED
            assert info.date_time == (2026, 1, 2, 3, 4, 6)
        assert archive.read("top/b.bin") == bytes(100_000)


def test_a_changed_file_or_key_is_not_up_to_date(tmp_path: Path) -> None:
    artifact = tmp_path / "x.zip"
    assert not package.up_to_date(artifact, "key")
    artifact.write_bytes(b"content")
    entry = {"name": "x.zip", "size": 7, "sha256": cache.file_digest(artifact)}
    package.manifest_path(artifact).write_text(json.dumps({"key": "key", "files": [entry]}))
    assert package.up_to_date(artifact, "key")
    assert not package.up_to_date(artifact, "other")
    artifact.write_bytes(b"c0ntent")
    assert not package.up_to_date(artifact, "key")
    package.manifest_path(artifact).write_text("{")
    assert not package.up_to_date(artifact, "key")


def test_a_skipped_test_counts_as_failed(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text('<testsuites><testsuite tests="3" skipped="0"/></testsuites>')
    testing.refuse_skips(junit)
    junit.write_text('<testsuites><testsuite tests="3" skipped="1"/></testsuites>')
    try:
        testing.refuse_skips(junit)
    except Failure as failure:
        assert "1 tests were skipped" in str(failure)
    else:
        raise AssertionError("a skip was accepted")
