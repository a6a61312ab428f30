"""Publishing to a real S3-compatible store, over a network that fails, by publishers that die."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from botocore.stub import Stubber
from shop import ACCESS, Proxy, Shop, answer, assemble, make_image, s3

from hyraxvm import cache, index, parts, publish, release, signing, store, upload
from hyraxvm.errors import Failure, UserError
from hyraxvm.package import SUMS
from hyraxvm.parts import MIB, PART

SLOW_DOWN = answer(503, "Slow Down", "SlowDown")
BROKEN = answer(500, "Internal Server Error", "InternalError")


def send(shop: Shop, folder: Path, public: bytes, url: str = "", keep: int = 2) -> list[str]:
    said: list[str] = []
    publish.folder(shop.store(url), folder, public, shop.settings(url, keep), said.append)
    return said


def nightlies(tmp_path: Path, key: str, *versions: str) -> list[Path]:
    made = []
    for version in versions:
        work = tmp_path / version
        work.mkdir()
        made.append(assemble(work, version, [make_image(work, seed=version.encode())], key))
    return made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore waits up to seconds between two tries."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *a: 0)


def test_everything_is_there_and_the_index_names_it(
    shop: Shop, folder: Path, second: Path, public: bytes
) -> None:
    assert send(shop, folder, public)[-1].endswith("index.json: 1.0.0 is published")
    assert shop.objects() == {
        "KEY.asc",
        "index.html",
        "index.json",
        *(f"releases/1.0.0/{path.name}" for path in folder.iterdir()),
    }
    for path in folder.iterdir():
        assert shop.read(f"releases/1.0.0/{path.name}") == path.read_bytes()
    shop.check()
    send(shop, second, public)
    shop.check()
    found = shop.index()
    assert found["schema"] == 1
    assert found["key"] == shop.key
    assert found["latest"] == {"release": "1.1.0", "nightly": ""}
    assert [one["version"] for one in found["releases"]] == ["1.1.0", "1.0.0"]
    first = found["releases"][1]["images"][0]
    assert (first["image"], first["server"]["name"]) == ("nfs", "dapdir")
    path = folder / first["files"][0]["name"]
    assert first["files"][0]["size"] == path.stat().st_size
    assert first["files"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_types_and_cache_headers(shop: Shop, folder: Path, public: bytes) -> None:
    send(shop, folder, public)
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


def test_a_dry_run_changes_nothing(shop: Shop, folder: Path, public: bytes) -> None:
    said: list[str] = []
    publish.folder(shop.store(), folder, public, shop.settings(), said.append, dry_run=True)
    assert shop.objects() == set()
    assert sum(line.startswith("send ") for line in said) == len(list(folder.iterdir()))
    assert said[-1] == f"write    s3://{shop.bucket}/vm/index.json"


def test_again_is_nothing_to_do_and_another_content_is_refused(
    shop: Shop, folder: Path, public: bytes, tmp_path: Path
) -> None:
    send(shop, folder, public)
    before = {name: shop.read(name) for name in shop.objects()}
    assert send(shop, folder, public)[-1].endswith("1.0.0 is published already")
    other = assemble(tmp_path, "1.0.0", [make_image(tmp_path, seed=b"other")], shop.key)
    with pytest.raises(UserError, match=r"1.0.0 is published with another content, and is never"):
        send(shop, other, public)
    assert {name: shop.read(name) for name in shop.objects()} == before


def test_what_an_unfinished_publish_left_is_replaced_where_it_differs(
    shop: Shop, second: Path, public: bytes
) -> None:
    folder = second
    files = [(path, f"releases/1.1.0/{path.name}") for path in folder.iterdir()]
    upload.upload(shop.store(), files, lambda count: None)
    image = next(folder.glob("*.ova"))
    (shop.folder / "vm/releases/1.1.0" / image.name).write_bytes(bytes(image.stat().st_size))
    said: list[str] = []
    publish.folder(shop.store(), folder, public, shop.settings(), said.append, dry_run=True)
    sent = [line for line in said if line.startswith("send ")]
    assert len(sent) == 1
    assert image.name in sent[0]
    send(shop, folder, public)
    shop.check()


@pytest.fixture
def tiny_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """rclone takes parts of any size."""
    monkeypatch.setattr(parts, "PART", 100_000)
    monkeypatch.setattr(parts, "MIB", 1)
    return 100_000


def _image(name: str, folder: Path) -> index.Image:
    path = folder / name
    return index.Image(
        image="nfs",
        title="An image",
        access="nfs",
        name=path.stem,
        base="debian-12",
        arch="amd64",
        server=index.Server(name="dapdir", version="1", title="dapdir"),
        inputs="0" * 64,
        files=[
            index.File(
                name=name,
                format="ova",
                size=path.stat().st_size,
                sha256=cache.file_digest(path),
            )
        ],
        manifest=f"{path.stem}.manifest.json",
        sbom=f"{path.stem}.cdx.json",
    )


@pytest.fixture
def lean(tmp_path: Path, key: str) -> Path:
    """A release of nothing but one file, in three parts."""
    made = tmp_path / "2.0.0"
    made.mkdir()
    (made / "image.ova").write_bytes(os.urandom(250_000))
    entry = index.Release(
        version="2.0.0",
        kind="release",
        path="releases/2.0.0",
        date="2026-01-02T03:04:06Z",
        revision="0",
        images=[_image("image.ova", made)],
    )
    (made / index.RELEASE).write_bytes(index.dump(entry))
    lines = [f"{cache.file_digest(path)}  {path.name}\n" for path in sorted(made.iterdir())]
    (made / SUMS).write_text("".join(lines))
    signing.sign(made / SUMS, key)
    return made


def test_a_publisher_killed_at_any_request_leaves_the_old_index_or_the_new_one(
    shop: Shop, second: Path, lean: Path, public: bytes, tiny_parts: int
) -> None:
    send(shop, second, public)
    old = shop.read("index.json")
    to = shop.store()
    states = []
    for step in range(1, 200):
        here = Shop(shop.server, f"{shop.bucket}-{step}", shop.key)
        shutil.copytree(shop.folder, here.folder, dirs_exist_ok=True)
        to.bucket = here.bucket
        child = os.fork()
        if child == 0:
            _publish_until(to, here, lean, public, step)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL)
        here.check(page=False)
        states.append("old" if here.read("index.json") == old else "new")
        publish.folder(to, lean, public, here.settings(), lambda line: None)
        to.client.close()  # the next child is not to share its connections
        here.check(page=False)
        assert [one["version"] for one in here.index()["releases"]] == ["2.0.0", "1.1.0"]
        assert here.read("releases/2.0.0/image.ova") == (lean / "image.ova").read_bytes()
        if status == 0:
            break
    else:
        raise AssertionError("the publisher never finished")
    # Only the last requests, which tidy up, come after the index.
    assert states == sorted(states, reverse=True)
    assert states.count("old") > 15
    assert states[-1] == "new"


def _publish_until(to: store.Store, shop: Shop, folder: Path, public: bytes, step: int) -> None:
    """In a child: publish, and die by SIGKILL instead of sending request number `step`."""
    seen = 0

    def count(**more: Any) -> None:
        nonlocal seen
        seen += 1
        if seen >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        to.client.meta.events.register("before-send.s3", count)
        publish.folder(to, folder, public, shop.settings(), lambda line: None)
        status = 0
    finally:
        os._exit(status)


@pytest.mark.parametrize(
    "fault",
    [("answer", SLOW_DOWN), ("answer", BROKEN), ("cut", 100_000), ("cut", 10), ("drop", 0)],
    ids=["503", "500", "cut in a part", "cut at once", "no answer"],
)
def test_a_network_that_fails_for_a_while(
    shop: Shop, tmp_path: Path, quick: None, tiny_parts: int, fault: tuple[str, Any]
) -> None:
    path = tmp_path / "large.zip"
    path.write_bytes(os.urandom(350_000))
    proxy = Proxy(shop.server.port)
    proxy.faults = [fault, fault]
    to = shop.store(proxy.url)
    moved: list[int] = []
    upload.upload(to, [(path, "large.zip")], moved.append)
    assert proxy.connections >= 2
    proxy.close()
    assert sum(moved) == 350_000
    assert shop.read("large.zip") == path.read_bytes()


def test_a_network_that_fails_for_good_is_one_line(shop: Shop, quick: None) -> None:
    proxy = Proxy(shop.server.port)
    proxy.faults = [("answer", SLOW_DOWN)] * 50
    with pytest.raises(Failure, match=r"s3://bucket-.*/vm/index.json: the store answers SlowDown"):
        publish.current(shop.store(proxy.url))
    proxy.close()
    with pytest.raises(Failure, match="Could not connect to the endpoint URL"):
        publish.current(shop.store(proxy.url))


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
        publish.current(shop.store(proxy.url))
    proxy.close()


def test_wrong_credentials_and_no_bucket(
    shop: Shop, folder: Path, public: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError, match="the secret key is not the access key's") as raised:
        send(shop, folder, public)
    assert "wrong" not in str(raised.value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODYKNOWSIT")
    with pytest.raises(UserError, match="does not know this access key"):
        send(shop, folder, public)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UserError, match="no credentials; set AWS_ACCESS_KEY_ID and"):
        send(shop, folder, public)
    settings = shop.settings().store.model_copy(update={"profile": "nobody"})
    with pytest.raises(UserError, match=r"nobody.*see store.profile in publish.toml"):
        store.Store(settings)


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
    # Whether a part may be replaced is the store's business; the object is never a mixture.
    try:
        upload.upload(to, [(path, "large.qcow2")], lambda count: None)
    except Failure:
        to.remove("large.qcow2")
        upload.upload(to, [(path, "large.qcow2")], lambda count: None)
    assert shop.read("large.qcow2") == path.read_bytes()


def test_a_store_that_was_killed_in_mid_publish(
    tmp_path: Path, key: str, folder: Path, public: bytes, quick: None
) -> None:
    server = s3(tmp_path / "data")
    shop = Shop(server, "killed-bucket", key)
    to = shop.store()
    to.client.meta.events.register("before-call.s3.PutObject", lambda **more: server.kill())
    with pytest.raises(Failure):
        publish.folder(to, folder, public, shop.settings(), lambda line: None)
    assert "index.json" not in shop.objects()
    server.start()
    send(shop, folder, public)
    shop.check()
    server.kill()


def test_part_sizes_grow_with_the_file() -> None:
    assert parts.part_size(0) == parts.part_size(10_000 * PART) == PART
    assert parts.count(0) == 1
    for size in (10_000 * PART + 1, 2**42):
        assert parts.count(size) <= 10_000
        assert parts.part_size(size) % MIB == 0


def test_a_digest_that_is_no_md5_means_reading_again(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a store that encrypts with keys of its own: rclone does not."""
    path = tmp_path / "file.zip"
    path.write_bytes(b"content" * 1000)
    to = shop.store()
    upload.upload(to, [(path, "file.zip")], lambda count: None)
    read: list[str] = []
    again = to._read_again
    monkeypatch.setattr(to, "_read_again", lambda key: read.append(key) or again(key))
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
    """As AWS makes it of an encrypted object in parts; rclone encrypts nothing."""
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
        stub.add_response(
            "get_object",
            {"Body": StreamingBody(io.BytesIO(bytes(size)), size)} | {"ContentLength": size},
        )
        assert not to.holds(path, "file.zip")
        # A checksum that is right does not make up for an ETag that is not.
        plain = {"ContentLength": size, "ETag": f'"{"0" * 32}-3"', "ChecksumSHA256": good}
        stub.add_response("head_object", plain)
        stub.add_response(
            "get_object",
            {"Body": StreamingBody(io.BytesIO(bytes(size)), size)} | {"ContentLength": size},
        )
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
        with pytest.raises(Failure, match="is not what was sent; publish again, it is replaced"):
            upload.upload(shop.store(proxy.url), [(path, "file.zip")], lambda count: None)
        proxy.close()
        upload.upload(shop.store(), [(path, "file.zip")], lambda count: None)
        assert shop.read("file.zip") == bytes(size)


def test_thousands_of_objects(shop: Shop) -> None:
    wanted = {f"nightlies/20250101/{number:04}" for number in range(2500)}
    top = shop.folder / "vm/nightlies/20250101"
    top.mkdir(parents=True)
    for number in range(2500):
        (top / f"{number:04}").touch()
    (shop.folder / "vm/nightlies/20250101-not").mkdir()
    (shop.folder / "vm/nightlies/20250101-not/mine").touch()
    to = shop.store()
    assert set(to.keys("nightlies/20250101/")) == wanted
    assert to.remove("nightlies/20250101/") == 2500
    assert shop.objects() == {"nightlies/20250101-not/mine"}


def test_old_nightlies_go_and_nothing_else(
    shop: Shop, folder: Path, public: bytes, key: str, tmp_path: Path
) -> None:
    send(shop, folder, public)
    stray = shop.folder / "vm/nightlies/20250101/half"
    stray.parent.mkdir(parents=True)
    stray.touch()
    versions = ("20260101", "20260102", "20260102.2", "20260102.10")
    made = nightlies(tmp_path, key, *versions)
    for one in made[:2]:
        send(shop, one, public, keep=2)
    publish.withdraw(shop.store(), "20260102", "does not boot")
    # What latest points to is older than the two newest.
    assert shop.index()["latest"] == {"release": "1.0.0", "nightly": "20260101"}
    for one in made[2:]:
        send(shop, one, public, keep=2)
    shop.check()
    found = [one["version"] for one in shop.index()["releases"]]
    assert found == ["1.0.0", "20260102.10", "20260102.2"]
    assert {name.split("/")[1] for name in shop.objects() if name.startswith("nightlies/")} == {
        "20260102.2",
        "20260102.10",
    }


def test_a_withdrawn_release_is_marked_and_stays(
    shop: Shop, folder: Path, second: Path, public: bytes
) -> None:
    with pytest.raises(UserError, match=r"1.1.0 is not published"):
        publish.withdraw(shop.store(), "1.1.0", "why")
    send(shop, folder, public)
    send(shop, second, public)
    publish.withdraw(shop.store(), "1.1.0", "loses data")
    assert shop.index()["latest"]["release"] == "1.0.0"
    assert shop.index()["releases"][0]["withdrawn"] == "loses data"
    assert "1.1.0" not in shop.read("index.html").decode()
    shop.check()
    assert send(shop, second, public)[-1].endswith("1.1.0 is published already")
    assert shop.index()["releases"][0]["withdrawn"] == "loses data"


def test_another_publisher_at_the_same_time_is_not_overwritten(
    shop: Shop, folder: Path, second: Path, public: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclone takes no conditional writes; the answer is the one that AWS gives."""
    to = shop.store()
    put = to.client.put_object
    seen: list[dict[str, Any]] = []

    def first_conflicts(**more: Any) -> Any:
        if more["Key"].endswith("index.json"):
            seen.append(more)
            if len(seen) == 1:
                send(shop, second, public)
                error = {"Error": {"Code": "PreconditionFailed", "Message": "it has changed"}}
                raise ClientError(error, "PutObject")
        return put(**more)

    monkeypatch.setattr(to.client, "put_object", first_conflicts)
    publish.folder(to, folder, public, shop.settings(), lambda line: None)
    assert [one["version"] for one in shop.index()["releases"]] == ["1.1.0", "1.0.0"]
    assert seen[0]["IfNoneMatch"] == "*"
    assert seen[1]["IfMatch"].strip('"') == hashlib.md5(seen_index(seen)).hexdigest()
    shop.check()


def seen_index(seen: list[dict[str, Any]]) -> bytes:
    """The index that was there at the second write: the one of the other release alone."""
    both = index.read_index(seen[1]["Body"], "")
    return index.dump(index.arranged(both.key, [both.releases[0]]))


def test_a_store_without_conditional_writes(shop: Shop) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    to = shop.store()
    to.client = client
    with Stubber(client) as stub:
        stub.add_client_error("put_object", "NotImplemented", http_status_code=501)
        stub.add_response("put_object", {"ETag": '"1"'})
        to.write("index.json", b"{}", store.BRIEFLY, "")
        stub.assert_no_pending_responses()


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
        send(shop, own, public)
    assert shop.objects() == set()
    with pytest.raises(UserError, match=r"no finished release; type: ./inv release 9.9.9"):
        release.read(tmp_path / "9.9.9", public, shop.key)


def test_secrets_do_not_stand_in_messages(shop: Shop) -> None:
    with pytest.raises(UserError) as raised:
        store.Store(shop.settings("http://127.0.0.1:99999").store).read("x")
    assert ACCESS not in str(raised.value)
