"""The index, publish.toml, and how the tasks refuse a wrong command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyraxvm import cli
from hyraxvm.config import publish
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import ROOT
from hyraxvm.core.workspace import Workspace
from hyraxvm.release import index
from tests.unit.release.shop import workspace


def test_versions_are_ordered_by_age() -> None:
    versions = ["1.0.0-rc1", "1.0.0-rc10", "1.0.0", "1.2.0", "1.10.0"]
    assert sorted(sorted(versions), key=index.order) == versions
    days = ["20251231", "20260101", "20260101.2", "20260101.10"]
    assert sorted(sorted(days), key=index.order) == days


def test_candidates_are_never_the_latest(folder: Path) -> None:
    one = index.read_release((folder / "release.json").read_bytes(), "")
    candidate = one.model_copy(update={"version": "2.0.0-rc1", "path": "releases/2.0.0-rc1"})
    found = index.make_index("0" * 40, [one, candidate])
    assert [entry.version for entry in found.releases] == ["2.0.0-rc1", "1.0.0"]
    assert found.latest.release == "1.0.0"


def test_the_schema_in_the_docs_is_the_one_of_the_models() -> None:
    assert (ROOT / "docs" / "index.schema.json").read_text() == index.json_schema()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[nightly]", "[nightlies]", "nightlies: unknown key; expected: download, nightly, "),
        ("keep = 14", "keep = 0", "nightly.keep: 0: input should be greater than or equal to 1"),
        ("keep = 14", "keep = '14'", "nightly.keep: '14': input should be a valid integer"),
        ("keep = 14", "kept = 14", "nightly.kept: unknown key; expected: keep"),
        ('bucket = ""', 'bucket = "A B"', "store.bucket: 'A B': string should match pattern"),
        ('prefix = ""', 'prefix = "/vm"', "store.prefix: '/vm': string should match"),
        ('key = ""', 'key = "1234"', "signing.key: '1234': string should match"),
        ('url = ""', 'url = "ftp://x"', "download.url: 'ftp://x': string should match"),
        (
            'endpoint = ""',
            'endpoint = "https://me:secret@store"',
            "store.endpoint: 'https://me:secret@store': string should match",
        ),
        (
            'url = ""',
            'url = "https://me:secret@host/x"',
            "download.url: 'https://me:secret@host/x': string should match",
        ),
        ("[signing]", "[signing", "is not valid TOML"),
        ('[signing]\nkey = ""', "", "signing: is missing"),
    ],
)
def test_a_fault_in_the_settings_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, told: str
) -> None:
    text = publish.PUBLISH_TOML.read_text()
    assert old in text
    path = tmp_path / "publish.toml"
    path.write_text(text.replace(old, new))
    monkeypatch.setenv(publish.VARIABLE, str(path))
    with pytest.raises(UserError) as raised:
        publish.load()
    assert str(raised.value).startswith(f"{path}: {told}")
    assert "\n" not in str(raised.value).rstrip()


def test_fingerprints_as_people_copy_them() -> None:
    assert publish.fingerprint("0123 4567 89ab CDEF " + "00" * 12) == "0123456789ABCDEF" + "00" * 12
    with pytest.raises(UserError, match="is not a fingerprint; expected: 40 hexadecimal digits"):
        publish.fingerprint("0123456789ABCDEF")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["publish", "1.0.0"], "signing.key: is empty; write its value there"),
        (["publish", "../x"], "'../x': is not a version"),
        (["withdraw", "1.0.0", "why"], "store.bucket: is empty; write its value there"),
        (["download"], "download.url: is empty; write its value there"),
        (["download", "--url", "http://[", "--key", "AB" * 20], "cannot be read as a URL"),
        (["download", "--url", "http://127.0.0.1/", "--key", "12"], "'12': is not a fingerprint"),
        (["download", "--url", "example.org/vm", "--key", "AB" * 20], "cannot be read as a URL"),
        (["download", "--url", "file:///etc", "--key", "AB" * 20], "cannot be read as a URL"),
        (["download", "--format", "iso", "--url", "http://127.0.0.1/"], "no format 'iso'"),
        (["release", "0.0.7", "--server", "dapdir", "--no-publish"], "is not the one in pyproject"),
        (["release", "1.0"], "'1.0': is not a version; expected: 1.2.3"),
        (["bench", "transfer", "--size", "x"], "invalid literal for int() with base 10: 'x'"),
        (
            ["bench", "transfer", "--size", "0"],
            "--size 0: too small; expected: 4 megabytes or more",
        ),
        (
            ["bench", "sleep"],
            "expected: build, transfer, serve, report or slowest; type: ./inv bench report",
        ),
        (["verify", "/nowhere"], "/nowhere: no such file"),
        (["verify"], "no file is named; type: ./inv verify FILE..."),
        (
            ["pin", "dapdir"],
            "server 'dapdir' is packed here, not pulled: it has no image to pin; expected: hyrax",
        ),
        (["matrix", "--server", "apache"], "there is no server 'apache'"),
        (["matrix", "more"], "No idea what 'more' is"),
        (["settings", "/nowhere"], "/nowhere: no such file; docs/settings.md shows one"),
        (["settings", "GOOD", "--to", "/nowhere/x"], "/nowhere/x: cannot be written; name a file"),
        (["settings", "GOOD", "--to", "/tmp"], "/tmp: cannot be written; name a file in an exist"),
        (["nightly", "--server", "apache"], "there is no server 'apache'"),
        (["nightly", "nope", "--server", "dapdir"], "there is no image 'nope'"),
    ],
)
def test_a_users_error_is_one_line_and_status_2(
    words: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Workspace, "here", lambda: workspace(tmp_path))
    good = tmp_path / "hyrax.toml"
    good.write_text('[vm]\nhostname = "dap1"\n')
    words = [str(good) if word == "GOOD" else word for word in words]
    if words[0] == "download" and "--format" in words:
        words = [*words, "--key", "AB" * 20]
    with pytest.raises(SystemExit) as raised:
        cli.run(words)
    said = capsys.readouterr().err
    assert told in said
    assert raised.value.code == 2
    assert len(said.strip().splitlines()) == 1
