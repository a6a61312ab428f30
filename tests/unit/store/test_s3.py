"""A real S3-compatible store over a bad network, and the digests that it reports."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.auth
import pytest
from botocore.response import StreamingBody
from botocore.stub import Stubber

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.publish import publisher
from hyraxvm.store import parts, upload
from hyraxvm.store import s3 as store
from hyraxvm.store.parts import MIB, PART
from tests.unit.release.shop import Shop
from tests.unit.store.faults import Proxy, answer
from tests.unit.store.loopback import ACCESS, s3

SLOW_DOWN = answer(503, "Slow Down", "SlowDown")
BROKEN = answer(500, "Internal Server Error", "InternalError")


@contextlib.contextmanager
def stubbed(shop: Shop) -> Iterator[tuple[store.Store, Stubber]]:
    """A store with prepared answers, for what rclone never answers."""
    to = shop.store()
    to.client = boto3.client("s3", region_name="us-east-1")
    with Stubber(to.client) as stub:
        yield to, stub


@pytest.mark.parametrize(
    "fault",
    [("answer", SLOW_DOWN), ("answer", BROKEN), ("cut", 100_000), ("cut", 10), ("drop", 0)],
    ids=["503", "500", "cut in a part", "cut at once", "no answer"],
)
def test_a_network_that_fails_for_a_while(
    shop: Shop, tmp_path: Path, quick: None, tiny_parts: int, fault: tuple[str, Any]
) -> None:
    path = tmp_path / "large.zip"
    path.write_bytes(os.urandom(4 * tiny_parts))  # cut before a part is complete
    proxy = Proxy(shop.server.port)
    proxy.faults = [fault, fault]
    to = shop.store(proxy.url)
    moved: list[int] = []
    upload.upload(to, [(path, "large.zip")], moved.append)
    proxy.close()
    assert proxy.struck == [fault[0]] * 2
    assert sum(moved) == 4 * tiny_parts
    assert shop.read("large.zip") == path.read_bytes()


def test_a_network_that_fails_for_good_is_one_line(shop: Shop, quick: None) -> None:
    proxy = Proxy(shop.server.port)
    proxy.faults = [("answer", SLOW_DOWN)] * 50
    with pytest.raises(Failure, match=r"s3://bucket-.*/vm/index.json: the store answers SlowDown"):
        publisher.published_index(shop.store(proxy.url))
    assert len(proxy.struck) == 6  # see docs/maintainer-guide.md
    proxy.close()
    with pytest.raises(Failure, match="Could not connect to the endpoint URL"):
        publisher.published_index(shop.store(proxy.url))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("RequestTimeTooSkewed", "this computer's clock is wrong"),
        ("AccessDenied", "see the policy in docs/maintainer-guide.md"),
        ("ExpiredToken", "the session has expired"),
        ("PermanentRedirect", "see store.region in publish.toml"),
    ],
)
def test_what_a_service_refuses_is_told_with_the_remedy(shop: Shop, code: str, told: str) -> None:
    proxy = Proxy(shop.server.port)
    proxy.faults = [("answer", answer(403, "Forbidden", code))]
    with pytest.raises(UserError, match=told):
        publisher.published_index(shop.store(proxy.url))
    proxy.close()


def test_a_clock_that_is_wrong_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store itself refuses a request from the future."""
    now = botocore.auth.get_current_datetime
    hour = datetime.timedelta(hours=1)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *words: now(*words) + hour)
    with pytest.raises(UserError, match=r"index.json: RequestTimeTooSkewed: this computer's clock"):
        publisher.published_index(shop.store())
    monkeypatch.undo()
    assert publisher.published_index(shop.store()) == (None, "")


def test_no_such_bucket(shop: Shop) -> None:
    settings = shop.settings().store.model_copy(update={"bucket": "is-not-there"})
    with pytest.raises(UserError, match=r"there is no such bucket; see store.bucket"):
        list(store.Store(settings).keys(""))


def test_a_full_disk_at_the_store(tmp_path: Path, key: str, quick: None) -> None:
    server = s3(tmp_path / "data", fsize=200_000)
    shop = Shop(server, "full-bucket", key)
    path = tmp_path / "large.zip"
    path.write_bytes(os.urandom(1_000_000))
    with pytest.raises(Failure, match=r"s3://full-bucket/vm/large.zip: "):
        upload.upload(shop.store(), [(path, "large.zip")], lambda count: None)
    server.kill()
    assert shop.objects() == set()


def test_a_store_that_was_full_is_published_to_when_there_is_room(
    mortal: Shop, folder: Path, second: Path, quick: None
) -> None:
    """Readers see the old state as long as the disk is full, then the new one."""
    mortal.send(folder)
    before = {name: mortal.read(name) for name in mortal.objects()}
    mortal.server.kill()
    mortal.server.limit(max(path.stat().st_size for path in second.iterdir()) - 1)
    mortal.server.start()
    with pytest.raises(Failure, match=r"s3://mortal-bucket/vm/releases/1.1.0/"):
        mortal.send(second)
    assert {name: mortal.read(name) for name in before} == before
    mortal.server.kill()
    mortal.server.limit(0)
    mortal.server.start()
    mortal.send(second)
    mortal.check()
    assert mortal.index()["latest"]["release"] == "1.1.0"


def test_parts_that_are_there_are_not_sent_again(
    shop: Shop, tmp_path: Path, tiny_parts: int, quick: None
) -> None:
    path = tmp_path / "large.qcow2"
    path.write_bytes(os.urandom(4 * tiny_parts + 17))
    to = shop.store()
    started = upload.start(to, path, "large.qcow2")
    for number in (1, 2):
        upload.send(to, started, number, lambda count: None)
    again = shop.store()
    sent: list[int] = []
    again.client.meta.events.register(
        "before-call.s3.UploadPart",
        lambda params, **more: sent.append(int(params["query_string"]["partNumber"])),
    )
    moved: list[int] = []
    upload.upload(again, [(path, "large.qcow2")], moved.append)
    assert sorted(sent) == [3, 4, 5]
    assert sum(moved) == path.stat().st_size
    assert shop.read("large.qcow2") == path.read_bytes()


def test_parts_of_a_store_that_encrypts_are_known_by_their_checksum(
    shop: Shop, tmp_path: Path, tiny_parts: int
) -> None:
    """Its ETags are not MD5s."""
    path = tmp_path / "large.qcow2"
    path.write_bytes(os.urandom(3 * tiny_parts))
    listed = [
        {
            "PartNumber": number,
            "Size": tiny_parts - (number == 2),
            "ETag": f'"{number:032x}"',
            "ChecksumSHA256": parts.checksum(data),
        }
        for number, data in enumerate(
            [*(parts.part(path, number, tiny_parts) for number in (1, 2)), b"another"], 1
        )
    ]
    with stubbed(shop) as (to, stub):
        uploads = [{"Key": f"{shop.prefix}large.qcow2", "UploadId": "begun"}]
        stub.add_response("list_multipart_uploads", {"Uploads": uploads})
        stub.add_response("list_parts", {"Parts": listed})
        assert list(upload.start(to, path, "large.qcow2").sent) == [1]


def test_parts_of_another_content_are_sent_again(
    shop: Shop, tmp_path: Path, tiny_parts: int
) -> None:
    path = tmp_path / "large.qcow2"
    path.write_bytes(os.urandom(2 * tiny_parts))
    to = shop.store()
    begun = upload.start(to, path, "large.qcow2")
    upload.send(to, begun, 1, lambda count: None)
    path.write_bytes(os.urandom(2 * tiny_parts))
    assert upload.start(to, path, "large.qcow2").sent == {}
    # The store decides whether a part can be replaced; the object must never be a mixture.
    try:
        upload.upload(to, [(path, "large.qcow2")], lambda count: None)
    except Failure:
        to.remove("large.qcow2")
        upload.upload(to, [(path, "large.qcow2")], lambda count: None)
    assert shop.read("large.qcow2") == path.read_bytes()


def test_part_sizes_grow_with_the_file() -> None:
    assert parts.part_size(0) == parts.part_size(10_000 * PART) == PART
    assert parts.count(0) == 1
    for size in (10_000 * PART + 1, 2**42):
        assert parts.count(size) <= 10_000
        assert parts.part_size(size) % MIB == 0


def test_a_digest_that_is_no_md5_means_reading_again(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is with a store that encrypts with its own keys; rclone does not encrypt."""
    path = tmp_path / "file.zip"
    path.write_bytes(b"content" * 1000)
    to = shop.store()
    upload.upload(to, [(path, "file.zip")], lambda count: None)
    read: list[str] = []
    again = to._read_again

    def read_again(key: str) -> str:
        read.append(key)
        return again(key)

    monkeypatch.setattr(to, "_read_again", read_again)
    assert to.holds(path, "file.zip")
    assert not read
    head = to.client.head_object
    foreign = {"SSEKMSKeyId": "arn:aws:kms:key", "ETag": '"0123"', "ChecksumSHA256": ""}
    monkeypatch.setattr(to.client, "head_object", lambda **more: {**head(**more), **foreign})
    assert to.holds(path, "file.zip")
    path.write_bytes(b"CONTENT" * 1000)
    assert not to.holds(path, "file.zip")
    assert read == ["file.zip", "file.zip"]


def test_the_stores_own_sha256_counts_where_the_etag_is_no_md5(
    shop: Shop, tmp_path: Path, tiny_parts: int
) -> None:
    """AWS does so for an encrypted object in parts; rclone does not encrypt."""
    path = tmp_path / "file.zip"
    pieces = [os.urandom(tiny_parts), os.urandom(tiny_parts), b"x"]
    path.write_bytes(b"".join(pieces))
    total = hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces)).digest()
    good = f"{base64.b64encode(total).decode()}-3"
    size = path.stat().st_size
    head = {"ContentLength": size, "ETag": '"0123-3"', "SSEKMSKeyId": "arn:aws:kms:key"}
    to = shop.store()

    def zeros() -> dict[str, Any]:
        return {"Body": StreamingBody(io.BytesIO(bytes(size)), size), "ContentLength": size}

    with Stubber(to.client) as stub:
        stub.add_response("head_object", {**head, "ChecksumSHA256": good})
        assert to.holds(path, "file.zip")
        stub.add_response("head_object", {**head, "ChecksumSHA256": good.replace("-3", "-4")})
        stub.add_response("get_object", zeros())
        assert not to.holds(path, "file.zip")
        # A wrong ETag counts even if the checksum is right.
        plain = {"ContentLength": size, "ETag": f'"{"0" * 32}-3"', "ChecksumSHA256": good}
        stub.add_response("head_object", plain)
        stub.add_response("get_object", zeros())
        assert not to.holds(path, "file.zip")
        md5 = hashlib.md5(b"".join(hashlib.md5(piece).digest() for piece in pieces)).hexdigest()
        stub.add_response("head_object", {**plain, "ETag": f'"{md5}-3"'})
        assert to.holds(path, "file.zip")
        stub.assert_no_pending_responses()


def test_what_is_damaged_on_its_way_is_noticed(shop: Shop, tmp_path: Path, tiny_parts: int) -> None:
    for size in (50_000, 250_000):
        path = tmp_path / "file.zip"
        path.write_bytes(bytes(size))
        proxy = Proxy(shop.server.port)
        proxy.faults = [("flip", 40_000)] * 9
        with pytest.raises(Failure, match="differs from what was sent; to replace it, publish ag"):
            upload.upload(shop.store(proxy.url), [(path, "file.zip")], lambda count: None)
        proxy.close()
        assert "flip" in proxy.struck
        upload.upload(shop.store(), [(path, "file.zip")], lambda count: None)
        assert shop.read("file.zip") == bytes(size)


def test_thousands_of_objects(shop: Shop) -> None:
    wanted = {f"nightlies/20250101/{number:04}" for number in range(1100)}
    top = shop.folder / "vm/nightlies/20250101"
    top.mkdir(parents=True)
    for number in range(1100):
        (top / f"{number:04}").touch()
    (shop.folder / "vm/nightlies/20250101-not").mkdir()
    (shop.folder / "vm/nightlies/20250101-not/mine").touch()
    to = shop.store()
    asked: list[str] = []
    to.client.meta.events.register(
        "before-call.s3", lambda model, **more: asked.append(str(model.name))
    )
    assert list(to.keys("nightlies/20250101/")) == sorted(wanted)
    assert asked == ["ListObjectsV2"] * 2
    assert to.remove("nightlies/20250101/") == 1100
    assert asked.count("DeleteObject") == 1100
    assert shop.objects() == {"nightlies/20250101-not/mine"}


def test_a_store_without_conditional_writes(shop: Shop) -> None:
    with stubbed(shop) as (to, stub):
        stub.add_client_error("put_object", "NotImplemented", http_status_code=501)
        stub.add_response("put_object", {"ETag": '"1"'})
        to.write("index.json", b"{}", store.BRIEFLY, "")
        stub.assert_no_pending_responses()


def test_a_conditional_write_that_fails_is_not_tried_without_the_condition(shop: Shop) -> None:
    for code, error in (("AccessDenied", UserError), ("PreconditionFailed", store.Conflict)):
        with stubbed(shop) as (to, stub):
            stub.add_client_error("put_object", code, http_status_code=403)
            stub.add_response("put_object", {"ETag": '"1"'})
            with pytest.raises(error):
                to.write("index.json", b"{}", store.BRIEFLY, '"0"')
            with pytest.raises(AssertionError):
                stub.assert_no_pending_responses()


def test_secrets_do_not_stand_in_messages(shop: Shop) -> None:
    with pytest.raises(UserError) as raised:
        store.Store(shop.settings("http://127.0.0.1:99999").store).read("x")
    assert ACCESS not in str(raised.value)
