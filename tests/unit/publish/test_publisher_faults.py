"""Publishers and stores that die during the work, and releases that are never published."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.publish import publisher
from hyraxvm.release import folder as folder_of_release
from hyraxvm.release import index
from hyraxvm.store import s3
from tests.unit.release.shop import Shop, bare
from tests.unit.store.faults import dies


@pytest.fixture
def lean(tmp_path: Path, key: str) -> Path:
    """A release of a single file, in three parts."""
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
        to.client.close()  # the next child must not share its connections
        here.check(page=False)
        assert [one["version"] for one in here.index()["releases"]] == ["2.0.0", "1.1.0"]
        assert here.read("releases/2.0.0/image.ova") == (lean / "image.ova").read_bytes()
        if not died:
            break
    else:
        raise AssertionError("the publisher never finished")
    # Only the last requests, which clean up, come after the index.
    assert states == sorted(states, reverse=True)
    assert states.count("old") > 15
    assert states[-1] == "new"


def test_a_store_that_was_killed_in_mid_publish(mortal: Shop, folder: Path, quick: None) -> None:
    to = mortal.store()
    to.client.meta.events.register("before-call.s3.PutObject", lambda **more: mortal.server.kill())
    with pytest.raises(Failure):
        mortal.send(folder, to)
    assert "index.json" not in mortal.objects()
    mortal.server.start()
    mortal.send(folder)
    mortal.check()


def test_another_publisher_at_the_same_time_is_not_overwritten(
    shop: Shop, folder: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclone does not support conditional writes, so the answer is that of AWS, sent by a proxy."""
    to = shop.store()
    put = to.client.put_object
    seen: list[dict[str, Any]] = []
    theirs: list[bytes] = []

    def first_conflicts(**more: Any) -> Any:
        if more["Key"].endswith("index.json"):
            seen.append(more)
            if len(seen) == 1:
                shop.send(second)
                theirs.append(shop.read("index.json"))
                error = {"Error": {"Code": "PreconditionFailed", "Message": "it has changed"}}
                raise ClientError(error, "PutObject")
        return put(**more)

    monkeypatch.setattr(to.client, "put_object", first_conflicts)
    shop.send(folder, to)
    assert [one["version"] for one in shop.index()["releases"]] == ["1.1.0", "1.0.0"]
    assert seen[0]["IfNoneMatch"] == "*"
    assert seen[1]["IfMatch"].strip('"') == hashlib.md5(theirs[0]).hexdigest()
    shop.check()


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
        s3.Store(settings)


@pytest.mark.parametrize("reason", ["", " ", "x" * 501, "two\nlines", "\x1b[2J"])
def test_a_reason_that_would_make_the_index_unreadable_is_refused(
    shop: Shop, folder: Path, reason: str
) -> None:
    shop.send(folder)
    before = {name: shop.read(name) for name in shop.objects()}
    with pytest.raises(
        UserError, match="cannot be the reason; expected: one line of 1 to 500 charac"
    ):
        publisher.withdraw(shop.store(), "1.0.0", reason, shop.key)
    assert {name: shop.read(name) for name in shop.objects()} == before
    publisher.withdraw(shop.store(), "1.0.0", "x" * 500, shop.key)
    current, _ = publisher.published_index(shop.store())
    assert current is not None
    assert current.releases[0].withdrawn == "x" * 500


def test_an_index_that_nobody_could_read_is_not_written(shop: Shop, folder: Path) -> None:
    shop.send(folder)
    before = {name: shop.read(name) for name in shop.objects()}

    def spoil(published: index.Index | None) -> index.Index:
        assert published
        return published.model_copy(update={"key": "none"})

    with pytest.raises(UserError, match=r"index.json: is not a valid index: key: "):
        publisher.update(shop.store(), spoil)
    assert {name: shop.read(name) for name in shop.objects()} == before


def test_a_signed_folder_under_another_name_is_not_published(
    shop: Shop, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "2.0.0")
    with pytest.raises(UserError, match=r"2\.0\.0: holds release 1\.0\.0; expected: .* 2\.0\.0"):
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
        "other signature": "is not what key [0-9A-F]{40} signed",
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
        folder_of_release.read(tmp_path / "9.9.9", public, shop.key)
