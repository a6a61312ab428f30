"""Publishing to a real S3-compatible store: what readers see, what stays, what is removed."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hyraxvm import cli
from hyraxvm.config import publish
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import ROOT
from hyraxvm.publish import publisher
from hyraxvm.release import index
from hyraxvm.store import s3, upload
from hyraxvm.tools import clean
from tests.unit.release.shop import NAME, Shop, assemble, make_image, workshop, workspace


def test_everything_is_there_and_the_index_names_it(shop: Shop, folder: Path, second: Path) -> None:
    assert shop.send(folder)[-1].endswith("index.json: 1.0.0 is published")
    assert shop.objects() == {
        f"keys/{shop.key}.asc",
        "index.html",
        "index.json",
        *(f"releases/1.0.0/{path.name}" for path in folder.iterdir()),
    }
    for path in folder.iterdir():
        assert shop.read(f"releases/1.0.0/{path.name}") == path.read_bytes()
    shop.check()
    shop.send(second)
    shop.check()
    found = shop.index()
    assert found["schema"] == 1
    assert found["key"] == shop.key
    assert [one["key"] for one in found["releases"]] == [shop.key] * 2
    assert found["latest"] == {"release": "1.1.0", "nightly": ""}
    assert [one["version"] for one in found["releases"]] == ["1.1.0", "1.0.0"]
    first = found["releases"][1]["images"][0]
    assert (first["image"], first["server"]["name"]) == ("nfs", "dapdir")
    path = folder / first["files"][0]["name"]
    assert first["files"][0]["size"] == path.stat().st_size
    assert first["files"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_types_and_cache_headers(shop: Shop, folder: Path) -> None:
    shop.send(folder)
    client = s3.client(shop.settings().store)
    name = f"releases/1.0.0/{NAME}"
    for key, kind, caching in (
        (f"{name}.zip", "application/zip", "immutable"),
        (f"{name}.qcow2", "application/octet-stream", "immutable"),
        (f"{name}.cdx.json", "application/json", "immutable"),
        ("releases/1.0.0/SHA256SUMS", "text/plain; charset=us-ascii", "immutable"),
        ("index.html", "text/html; charset=utf-8", "max-age=60"),
        ("index.json", "application/json", "max-age=60"),
    ):
        head = client.head_object(Bucket=shop.bucket, Key=f"vm/{key}")
        assert head["ContentType"] == kind, key
        assert caching in head["CacheControl"], key


def test_a_dry_run_changes_nothing(shop: Shop, folder: Path) -> None:
    said = shop.send(folder, dry_run=True)
    assert shop.objects() == set()
    assert sum(line.startswith("send ") for line in said) == len(list(folder.iterdir()))
    assert said[-1] == f"write    s3://{shop.bucket}/vm/index.json"


def test_again_is_nothing_to_do_and_another_content_is_refused(
    shop: Shop, folder: Path, tmp_path: Path
) -> None:
    shop.send(folder)
    before = {name: shop.read(name) for name in shop.objects()}
    *_, said, renewed = shop.send(folder)
    assert said.endswith("1.0.0 is published already")
    assert renewed.endswith("index.json: is signed again")
    other = assemble(tmp_path, "1.0.0", [make_image(tmp_path, seed=b"other")], shop.key)
    with pytest.raises(UserError, match=r"1.0.0 is published with other content, and is never"):
        shop.send(other)
    after = {name: shop.read(name) for name in shop.objects()}
    assert index.read_index(after.pop("index.json"), "").releases == (
        index.read_index(before.pop("index.json"), "").releases
    )
    assert after == before


def test_nobody_takes_away_what_is_being_published(shop: Shop, tmp_path: Path) -> None:
    """Neither `./inv clean` nor another release of that version may remove the folder."""
    built = [make_image(tmp_path)]
    path = assemble(tmp_path, "1.0.0", built, shop.key)
    before = {one.name: one.read_bytes() for one in path.iterdir()}
    tried: list[str] = []
    to = shop.store()

    first = threading.Lock()

    def meanwhile(**more: Any) -> None:
        if not first.acquire(blocking=False):  # several files are sent side by side
            return
        for attempt in (
            lambda: clean.clean(workspace(tmp_path), with_cache=False),
            lambda: assemble(tmp_path, "1.0.0", built, shop.key, text="- Other."),
        ):
            with pytest.raises(UserError) as raised:
                attempt()
            tried.append(str(raised.value))

    to.client.meta.events.register("before-call.s3.PutObject", meanwhile)
    shop.send(path, to)
    assert tried == [
        "a publish runs in this checkout; wait for it, or end it",
        f"{path}: is being published as it was; wait for it, or end it",
    ]
    assert {one.name: one.read_bytes() for one in path.iterdir()} == before
    shop.check()
    assemble(tmp_path, "1.0.0", built, shop.key, text="- Other.")
    assert (path / "RELEASE-NOTES.md").read_bytes() != before["RELEASE-NOTES.md"]
    assert f"removed {path.parent}" in clean.clean(workspace(tmp_path), with_cache=False)


def test_the_command_publishes_what_is_in_artifacts(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = assemble(tmp_path, "1.0.0", [make_image(tmp_path)], shop.key)
    monkeypatch.setattr(publish, "load", shop.settings)
    with workshop(tmp_path):
        cli.run(["publish", "1.0.0", "--dry-run"])
        assert f"send     s3://{shop.bucket}/vm/releases/1.0.0/SHA256SUMS" in (
            capsys.readouterr().out
        )
        assert shop.objects() == set()
        cli.run(["publish", "1.0.0"])
        for one in path.iterdir():
            assert shop.read(f"releases/1.0.0/{one.name}") == one.read_bytes()
        shop.check()


def test_what_an_unfinished_publish_left_is_replaced_where_it_differs(
    shop: Shop, second: Path
) -> None:
    files = [(path, f"releases/1.1.0/{path.name}") for path in second.iterdir()]
    upload.upload(shop.store(), files, lambda count: None)
    image = next(second.glob("*.ova"))
    (shop.folder / "vm/releases/1.1.0" / image.name).write_bytes(bytes(image.stat().st_size))
    said = shop.send(second, dry_run=True)
    sent = [line for line in said if line.startswith("send ")]
    assert len(sent) == 1
    assert image.name in sent[0]
    shop.send(second)
    shop.check()


def test_old_nightlies_go_and_nothing_else(
    shop: Shop, folder: Path, nightly: Callable[[str], Path]
) -> None:
    shop.send(folder)
    stray = shop.folder / "vm/nightlies/20250101/half"
    stray.parent.mkdir(parents=True)
    stray.touch()
    versions = ("20260101", "20260102", "20260102.2", "20260102.10")
    made = [nightly(version) for version in versions]
    for one in made[:2]:
        shop.send(one, keep=2)
    publisher.withdraw(shop.store(), "20260102", "does not boot", shop.key)
    # The nightly in `latest` is older than the two newest.
    assert shop.index()["latest"] == {"release": "1.0.0", "nightly": "20260101"}
    for one in made[2:]:
        shop.send(one, keep=2)
    shop.check()
    found = [one["version"] for one in shop.index()["releases"]]
    assert found == ["1.0.0", "20260102.10", "20260102.2"]
    assert {name.split("/")[1] for name in shop.objects() if name.startswith("nightlies/")} == {
        "20260102.2",
        "20260102.10",
    }


def test_a_nightly_that_comes_late_is_not_removed_by_itself(
    shop: Shop, nightly: Callable[[str], Path]
) -> None:
    """The nightly in `latest` stays, even if newer ones, all withdrawn, are as many as are kept."""
    late, *newer = (nightly(version) for version in ("20260101", "20260102", "20260103"))
    for one in newer:
        shop.send(one, keep=2)
        publisher.withdraw(shop.store(), one.name, "does not boot", shop.key)
    shop.send(late, keep=2)
    assert shop.index()["latest"]["nightly"] == "20260101"
    assert [one["version"] for one in shop.index()["releases"]] == [
        *("20260103", "20260102", "20260101")
    ]
    shop.check()


def test_what_another_publisher_is_sending_stays(
    shop: Shop, nightly: Callable[[str], Path]
) -> None:
    for version in ("20251231", "20260101", "20260103"):
        begun = shop.folder / "vm/nightlies" / version / "half"
        begun.parent.mkdir(parents=True)
        begun.touch()
    for version in ("20260101", "20260102"):
        shop.send(nightly(version))
    assert {name for name in shop.objects() if name.endswith("half")} == {
        "nightlies/20260101/half",  # nothing of a version in the index is removed
        "nightlies/20260103/half",
    }


def test_a_withdrawn_release_is_marked_and_stays(shop: Shop, folder: Path, second: Path) -> None:
    with pytest.raises(UserError, match=r"1.1.0 is not published"):
        publisher.withdraw(shop.store(), "1.1.0", "why", shop.key)
    shop.send(folder)
    shop.send(second)
    publisher.withdraw(shop.store(), "1.1.0", "loses data", shop.key)
    assert shop.index()["latest"]["release"] == "1.0.0"
    assert shop.index()["releases"][0]["withdrawn"] == "loses data"
    assert "1.1.0" not in shop.read("index.html").decode()
    shop.check()
    assert shop.send(second)[-2].endswith("1.1.0 is published already")
    assert shop.index()["releases"][0]["withdrawn"] == "loses data"


def test_the_index_keeps_to_the_schema_in_the_docs(shop: Shop, folder: Path, second: Path) -> None:
    shop.send(folder)
    shop.send(second)
    publisher.withdraw(shop.store(), "1.0.0", "loses data", shop.key)
    schema = json.loads((ROOT / "docs/index.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    found = shop.index()
    assert [error.message for error in check.iter_errors(found)] == []
    found["releases"][0]["images"][0]["files"][0]["sha256"] = "0"
    found["releases"][0]["date"] = "\u0662026-01-02T03:04:06Z"
    del found["key"]
    assert len(list(check.iter_errors(found))) == 3
    with pytest.raises(UserError, match=r"is not a valid index: key: Field required"):
        index.read_index(json.dumps(found).encode(), "it")
