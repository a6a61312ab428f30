"""Publishing to a real S3-compatible store, over a network that fails, by publishers that die."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from botocore.exceptions import ClientError
from faults import dies
from shop import Shop, assemble, bare, make_image, workshop

from hyraxvm import (
    cli,
    housekeeping,
    index,
    publish,
    publishing,
    release,
    store,
    upload,
)
from hyraxvm.errors import Failure, UserError
from hyraxvm.paths import ROOT


def nightlies(tmp_path: Path, key: str, *versions: str) -> list[Path]:
    made = []
    for version in versions:
        work = tmp_path / version
        work.mkdir()
        made.append(assemble(work, version, [make_image(work, seed=version.encode())], key))
    return made


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
    client = store.client(shop.settings().store)
    name = "releases/1.0.0/hyrax-vm-nfs-dapdir1.0.0-debian12-amd64"
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
    assert shop.send(folder)[-1].endswith("1.0.0 is published already")
    other = assemble(tmp_path, "1.0.0", [make_image(tmp_path, seed=b"other")], shop.key)
    with pytest.raises(UserError, match=r"1.0.0 is published with another content, and is never"):
        shop.send(other)
    assert {name: shop.read(name) for name in shop.objects()} == before


def test_nobody_takes_away_what_is_being_published(shop: Shop, tmp_path: Path) -> None:
    """Not to clean up, and not to put another release in its place."""
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
            lambda: housekeeping.clean(with_cache=False),
            lambda: assemble(tmp_path, "1.0.0", built, shop.key, text="- Other."),
        ):
            with pytest.raises(UserError) as raised:
                attempt()
            tried.append(str(raised.value))

    to.client.meta.events.register("before-call.s3.PutObject", meanwhile)
    with workshop(tmp_path):
        shop.send(path, to)
        assert tried == [
            "a publish runs in this checkout; wait for it, or end it",
            f"{path}: is being published as it was; wait for it, or end it",
        ]
        assert {one.name: one.read_bytes() for one in path.iterdir()} == before
        shop.check()
        assemble(tmp_path, "1.0.0", built, shop.key, text="- Other.")
        assert (path / "RELEASE-NOTES.md").read_bytes() != before["RELEASE-NOTES.md"]
        assert f"removed {path.parent}" in housekeeping.clean(with_cache=False)


def test_the_command_publishes_what_is_in_artifacts(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = assemble(tmp_path, "1.0.0", [make_image(tmp_path)], shop.key)
    monkeypatch.setattr(publishing, "load", shop.settings)
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


@pytest.fixture
def lean(tmp_path: Path, key: str) -> Path:
    """A release of nothing but one file, in three parts."""
    return bare(tmp_path / "2.0.0", key, "image.ova", os.urandom(250_000))


def test_a_publisher_killed_at_any_request_leaves_the_old_index_or_the_new_one(
    shop: Shop, second: Path, lean: Path, tiny_parts: int
) -> None:
    shop.send(second)
    old = shop.read("index.json")
    to = shop.store()
    states = []
    for step in range(1, 200):
        here = Shop(shop.server, f"{shop.bucket}-{step}", shop.key)
        shutil.copytree(shop.folder, here.folder, dirs_exist_ok=True)
        to.bucket = here.bucket
        publish_lean = functools.partial(here.send, lean, to)
        died = dies(to.client, step, publish_lean)
        here.check(page=False)
        states.append("old" if here.read("index.json") == old else "new")
        publish_lean()
        to.client.close()  # the next child is not to share its connections
        here.check(page=False)
        assert [one["version"] for one in here.index()["releases"]] == ["2.0.0", "1.1.0"]
        assert here.read("releases/2.0.0/image.ova") == (lean / "image.ova").read_bytes()
        if not died:
            break
    else:
        raise AssertionError("the publisher never finished")
    # Only the last requests, which tidy up, come after the index.
    assert states == sorted(states, reverse=True)
    assert states.count("old") > 15
    assert states[-1] == "new"


def test_wrong_credentials_and_no_bucket(
    shop: Shop, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError, match="the secret key is not the access key's") as raised:
        shop.send(folder)
    assert "wrong" not in str(raised.value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODYKNOWSIT")
    with pytest.raises(UserError, match="does not know this access key"):
        shop.send(folder)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UserError, match="no credentials; set AWS_ACCESS_KEY_ID and"):
        shop.send(folder)
    settings = shop.settings().store.model_copy(update={"profile": "nobody"})
    with pytest.raises(UserError, match=r"nobody.*see store.profile in publish.toml"):
        store.Store(settings)


def test_a_store_that_was_killed_in_mid_publish(mortal: Shop, folder: Path, quick: None) -> None:
    to = mortal.store()
    to.client.meta.events.register("before-call.s3.PutObject", lambda **more: mortal.server.kill())
    with pytest.raises(Failure):
        mortal.send(folder, to)
    assert "index.json" not in mortal.objects()
    mortal.server.start()
    mortal.send(folder)
    mortal.check()


def test_old_nightlies_go_and_nothing_else(
    shop: Shop, folder: Path, key: str, tmp_path: Path
) -> None:
    shop.send(folder)
    stray = shop.folder / "vm/nightlies/20250101/half"
    stray.parent.mkdir(parents=True)
    stray.touch()
    versions = ("20260101", "20260102", "20260102.2", "20260102.10")
    made = nightlies(tmp_path, key, *versions)
    for one in made[:2]:
        shop.send(one, keep=2)
    publish.withdraw(shop.store(), "20260102", "does not boot")
    # What latest points to is older than the two newest.
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
    shop: Shop, key: str, tmp_path: Path
) -> None:
    """What latest points to stays, also where newer ones, which are withdrawn, fill the number."""
    late, *newer = nightlies(tmp_path, key, "20260101", "20260102", "20260103")
    for one in newer:
        shop.send(one, keep=2)
        publish.withdraw(shop.store(), one.name, "does not boot")
    shop.send(late, keep=2)
    assert shop.index()["latest"]["nightly"] == "20260101"
    assert [one["version"] for one in shop.index()["releases"]] == [
        *("20260103", "20260102", "20260101")
    ]
    shop.check()


def test_what_another_publisher_is_sending_stays(shop: Shop, key: str, tmp_path: Path) -> None:
    for version in ("20251231", "20260101", "20260103"):
        begun = shop.folder / "vm/nightlies" / version / "half"
        begun.parent.mkdir(parents=True)
        begun.touch()
    for one in nightlies(tmp_path, key, "20260101", "20260102"):
        shop.send(one)
    assert {name for name in shop.objects() if name.endswith("half")} == {
        "nightlies/20260101/half",  # of a version that is in the index, nothing is removed
        "nightlies/20260103/half",
    }


def test_a_withdrawn_release_is_marked_and_stays(shop: Shop, folder: Path, second: Path) -> None:
    with pytest.raises(UserError, match=r"1.1.0 is not published"):
        publish.withdraw(shop.store(), "1.1.0", "why")
    shop.send(folder)
    shop.send(second)
    publish.withdraw(shop.store(), "1.1.0", "loses data")
    assert shop.index()["latest"]["release"] == "1.0.0"
    assert shop.index()["releases"][0]["withdrawn"] == "loses data"
    assert "1.1.0" not in shop.read("index.html").decode()
    shop.check()
    assert shop.send(second)[-1].endswith("1.1.0 is published already")
    assert shop.index()["releases"][0]["withdrawn"] == "loses data"


@pytest.mark.parametrize("reason", ["", " ", "x" * 501, "two\nlines", "\x1b[2J"])
def test_a_reason_that_would_make_the_index_unreadable_is_refused(
    shop: Shop, folder: Path, reason: str
) -> None:
    shop.send(folder)
    before = {name: shop.read(name) for name in shop.objects()}
    with pytest.raises(UserError, match="is no reason; allowed is one line of 1 to 500 charac"):
        publish.withdraw(shop.store(), "1.0.0", reason)
    assert {name: shop.read(name) for name in shop.objects()} == before
    publish.withdraw(shop.store(), "1.0.0", "x" * 500)
    assert publish.current(shop.store())[0].releases[0].withdrawn == "x" * 500  # type: ignore[union-attr]


def test_an_index_that_nobody_could_read_is_not_written(shop: Shop, folder: Path) -> None:
    shop.send(folder)
    before = {name: shop.read(name) for name in shop.objects()}

    def spoil(published: index.Index | None) -> index.Index:
        assert published
        return published.model_copy(update={"key": "none"})

    with pytest.raises(UserError, match=r"index.json: is damaged or no index: key: "):
        publish.update(shop.store(), spoil)
    assert {name: shop.read(name) for name in shop.objects()} == before


def test_the_index_keeps_to_the_schema_in_the_docs(shop: Shop, folder: Path, second: Path) -> None:
    shop.send(folder)
    shop.send(second)
    publish.withdraw(shop.store(), "1.0.0", "loses data")
    schema = json.loads((ROOT / "docs/index.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    found = shop.index()
    assert [error.message for error in check.iter_errors(found)] == []
    found["releases"][0]["images"][0]["files"][0]["sha256"] = "0"
    found["releases"][0]["date"] = "\u0662026-01-02T03:04:06Z"
    del found["key"]
    assert len(list(check.iter_errors(found))) == 3
    with pytest.raises(UserError, match=r"is damaged or no index: key: Field required"):
        index.read_index(json.dumps(found).encode(), "it")


def test_another_publisher_at_the_same_time_is_not_overwritten(
    shop: Shop, folder: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclone takes no conditional writes; the answer is the one that AWS gives."""
    to = shop.store()
    put = to.client.put_object
    seen: list[dict[str, Any]] = []

    def first_conflicts(**more: Any) -> Any:
        if more["Key"].endswith("index.json"):
            seen.append(more)
            if len(seen) == 1:
                shop.send(second)
                error = {"Error": {"Code": "PreconditionFailed", "Message": "it has changed"}}
                raise ClientError(error, "PutObject")
        return put(**more)

    monkeypatch.setattr(to.client, "put_object", first_conflicts)
    shop.send(folder, to)
    assert [one["version"] for one in shop.index()["releases"]] == ["1.1.0", "1.0.0"]
    assert seen[0]["IfNoneMatch"] == "*"
    assert seen[1]["IfMatch"].strip('"') == hashlib.md5(seen_index(seen)).hexdigest()
    shop.check()


def seen_index(seen: list[dict[str, Any]]) -> bytes:
    """The index that was there at the second write: the one of the other release alone."""
    both = index.read_index(seen[1]["Body"], "")
    return index.dump(index.arranged(both.key, [both.releases[0]]))


def test_a_signed_folder_under_another_name_is_not_published(
    shop: Shop, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "2.0.0")
    with pytest.raises(UserError, match=r"2\.0\.0: holds release 1\.0\.0"):
        shop.send(tmp_path / "2.0.0")
    assert shop.objects() == set()


@pytest.mark.parametrize("change", ["edit", "remove", "stranger", "unsigned", "other signature"])
def test_a_folder_that_is_not_as_it_was_signed_is_not_published(
    shop: Shop, folder: Path, public: bytes, tmp_path: Path, change: str
) -> None:
    own = tmp_path / "1.0.0"
    own.mkdir()
    for path in folder.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    image = next(own.glob("*.ova"))
    told = {
        "edit": "is missing, or not what SHA256SUMS says",
        "remove": "is missing, or not what SHA256SUMS says",
        "stranger": "note: is not in SHA256SUMS",
        "unsigned": "its signature is not one of key",
        "other signature": "its signature is not one of key",
    }[change]
    if change == "edit":
        image.write_bytes(image.read_bytes()[:-1] + b"!")
    elif change == "remove":
        image.unlink()
    elif change == "stranger":
        (own / "note").touch()
    elif change == "unsigned":
        (own / "SHA256SUMS.asc").unlink()
    else:
        (own / "SHA256SUMS").write_text((own / "SHA256SUMS").read_text().replace("nfs", "nsf"))
    with pytest.raises(UserError, match=told):
        shop.send(own)
    assert shop.objects() == set()
    with pytest.raises(UserError, match=r"no finished release; type: ./inv release 9.9.9"):
        release.read(tmp_path / "9.9.9", public, shop.key)
