"""The policies in docs/maintainer-guide.md: enough for every request of ours, and no more."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyraxvm.core.paths import ROOT
from hyraxvm.publish import publisher
from hyraxvm.release import assemble as release
from hyraxvm.store import upload
from hyraxvm.store.s3 import Store
from hyraxvm.store.stage_cache import SharedCache
from tests.unit.release.shop import Shop, assemble, make_image

# AWS, "Service Authorization Reference", Amazon S3: operation -> action on the object.
OBJECTS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "ListParts": "s3:ListMultipartUploadParts",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
}
BUCKETS = {
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}
Need = tuple[str, str, str | None]  # action, resource, and the prefix that is listed


def needs(operation: str, words: dict[str, Any]) -> Iterator[Need]:
    """Yield the rights that a request needs, so that the store answers as the code expects."""
    bucket = f"arn:aws:s3:::{words['Bucket']}"
    if operation in BUCKETS:
        yield BUCKETS[operation], bucket, words["Prefix"]
        return
    yield OBJECTS[operation], f"{bucket}/{words['Key']}", None
    if OBJECTS[operation] == "s3:GetObject":
        # Without it the store answers 403 for a missing object; the request has no prefix.
        yield "s3:ListBucket", bucket, None
    if "IfMatch" in words:
        yield "s3:GetObject", f"{bucket}/{words['Key']}", None


def allows(policy: list[dict[str, Any]], need: Need) -> set[str]:
    """Return the actions of a policy that meet a need: one, or none."""
    action, resource, prefix = need
    for statement in policy:
        actions = statement["Action"]
        conditions = statement.get("Condition", {"StringLike": {"s3:prefix": "*"}})
        wanted = conditions["StringLike"]["s3:prefix"]
        if (
            action in ([actions] if isinstance(actions, str) else actions)
            and fnmatch.fnmatchcase(resource, statement["Resource"])
            and (wanted == "*" or (prefix is not None and fnmatch.fnmatchcase(prefix, wanted)))
        ):
            return {action}
    return set()


def policies(bucket: str, prefix: str) -> list[list[dict[str, Any]]]:
    """Return the policies of the guide in order: the publisher's, and the building machines'."""
    text = (ROOT / "docs/maintainer-guide.md").read_text()
    blocks = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    made = []
    for block in (one for one in blocks if "Statement" in one):
        # The publisher's prefix ends in a slash, as in the settings; the cache's does not.
        own = prefix.rstrip("/") if "PREFIX/*" in block else prefix
        found = json.loads(block.replace("BUCKET", bucket).replace("PREFIX", own))
        made.append(found["Statement"])
    return made


def watched(store: Store) -> list[Need]:
    """Return a list to which each request of a store adds its needs."""
    found: list[Need] = []

    def note(params: dict[str, Any], model: Any, **more: Any) -> None:
        found.extend(needs(model.name, params))

    store.client.meta.events.register("before-parameter-build.s3", note)
    return found


def hold(policy: list[dict[str, Any]], found: list[Need]) -> None:
    """Check that a policy meets each need, and that each of its rights is needed."""
    assert [need for need in found if not allows(policy, need)] == []
    said = [statement["Action"] for statement in policy]
    given = {one for each in said for one in ([each] if isinstance(each, str) else each)}
    assert given == {one for need in found for one in allows(policy, need)}


def begun(store: Store, path: Path, key: str) -> None:
    """Leave an upload as a killed publisher leaves it."""
    upload.send(store, upload.start(store, path, key), 1, lambda count: None)


@pytest.fixture
def large(tmp_path: Path, tiny_parts: int) -> Path:
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(3 * tiny_parts))
    return path


def test_the_publishers_rights(
    shop: Shop, folder: Path, second: Path, key: str, tmp_path: Path, large: Path
) -> None:
    policy = policies(shop.bucket, shop.prefix)[0]
    to = shop.store()
    found = watched(to)

    def send(path: Path) -> None:
        shop.send(path, to, keep=1)

    send(folder)
    send(second)
    release.previous(to, "release", "2.0.0")
    publisher.withdraw(to, "1.1.0", "loses data", shop.key)
    for version in ("20260101", "20260102"):
        work = tmp_path / version
        work.mkdir()
        send(assemble(work, version, [make_image(work, seed=version.encode())], key))
        # Uploads that killed publishers have left: of this nightly, and of one that is removed.
        begun(to, large, f"nightlies/{version}/large.bin")
        begun(to, large, f"nightlies/{version}/large.bin")
    work = tmp_path / "20260103"
    work.mkdir()
    send(assemble(work, "20260103", [make_image(work, seed=b"3")], key))
    shop.check()
    assert {name.split("/")[1] for name in shop.objects() if name.startswith("nightlies/")} == {
        "20260103"
    }
    hold(policy, found)
    top = f"arn:aws:s3:::{shop.bucket}"
    for action, resource in (
        ("s3:DeleteObject", f"{top}/vm/releases/1.0.0/SHA256SUMS"),
        ("s3:DeleteObject", f"{top}/vm/index.json"),
        ("s3:PutObject", f"{top}/other/x"),
        ("s3:DeleteBucket", top),
    ):
        assert not allows(policy, (action, resource, None)), resource


def test_the_rights_of_machines_that_build(shop: Shop, tmp_path: Path, large: Path) -> None:
    policy = policies(shop.bucket, shop.prefix)[1]
    to = shop.store()
    found = watched(to)
    said: list[str] = []
    cache = SharedCache(to, b"k" * 32, said.append)
    made, work, spare = (tmp_path / name for name in ("made", "work", "spare"))
    for one in (made, work, spare):
        one.mkdir()
    assert not cache.fetch("rootfs", "ab" * 32, work, spare)  # first it is not in the cache
    large.rename(made / large.name)
    cache.keep("rootfs", "ab" * 32, made, spare)
    begun(to, made / large.name, "rootfs/half.tar.zst")
    begun(to, made / large.name, "rootfs/half.tar.zst")
    assert cache.fetch("rootfs", "ab" * 32, work, spare)
    assert (work / large.name).read_bytes() == (made / large.name).read_bytes()
    assert len(said) == 2, said
    hold(policy, found)
    assert not allows(policy, ("s3:PutObject", f"arn:aws:s3:::{shop.bucket}/index.json", None))
    # A condition about a prefix would fail: a request for an object has no prefix.
    narrow = [{**one, "Condition": {"StringLike": {"s3:prefix": "vm/*"}}} for one in policy]
    assert not allows(narrow, ("s3:ListBucket", f"arn:aws:s3:::{shop.bucket}", None))
