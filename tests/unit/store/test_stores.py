"""Every store that people have: published to, resumed, cleaned up, and shown by --check."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.auth
import pytest

from hyraxvm import cli
from hyraxvm.config import publish
from hyraxvm.core.errors import UserError
from hyraxvm.publish import publisher
from hyraxvm.publish.site import Site
from hyraxvm.store import probe, s3, upload
from tests.unit.release.shop import Shop
from tests.unit.store.strict import STORES, Rules, fronted

NAMES = ("sha256", "new", "known", "md5", "length", "list", "uploads", "remove", "clock")
# What differs from AWS S3, where each answer is yes.
ANSWERS: dict[str, dict[str, str]] = {
    "AWS S3": {},
    "Backblaze B2": {"sha256": "refused"},
    "Backblaze B2 of before conditions": {
        "sha256": "refused",
        "new": "refused",
        "known": "refused",
    },
    "MinIO of before 2025": {},
    "PowerScale": {"sha256": "ignored", "new": "ignored", "known": "ignored"},
    "Google's interoperability": {
        "sha256": "ignored",
        "new": "refused",
        "known": "refused",
        "uploads": "no",
    },
    "Cloudflare R2": {},
    "Alibaba OSS": {"sha256": "ignored", "new": "refused", "known": "refused"},
    "Ceph that encrypts": {
        "sha256": "ignored",
        "new": "ignored",
        "known": "ignored",
        "md5": "no",
    },
    "a gateway that says no lengths": {
        "sha256": "ignored",
        "new": "refused",
        "known": "refused",
        "length": "no",
    },
}


def answers(found: list[probe.Ability]) -> dict[str, str]:
    return dict(zip(NAMES, (one.answer for one in found), strict=True))


@pytest.mark.parametrize("name", STORES)
def test_the_abilities_of_each_store_are_found_out(shop: Shop, name: str) -> None:
    with fronted(shop, STORES[name]) as url:
        found = probe.probe(shop.store(url))
    assert answers(found) == {**dict.fromkeys(NAMES, "yes"), **ANSWERS[name]}
    assert shop.objects() == set()


@pytest.mark.parametrize("name", STORES)
def test_each_store_is_published_to_and_cleaned_up(
    shop: Shop,
    folder: Path,
    nightly: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    tiny_parts: int,
) -> None:
    """Releases, nightlies of which one expires, files in parts, and a second try."""
    with fronted(shop, STORES[name]) as url:
        shop.send(folder, shop.store(url))
        for day in ("20260101", "20260102", "20260103"):
            shop.send(nightly(day), shop.store(url), keep=2)
        shop.check()
        assert [one["version"] for one in shop.index()["releases"]] == [
            *("1.0.0", "20260103", "20260102")
        ]
        assert not [one for one in shop.objects() if "20260101" in one]
        assert shop.send(folder, shop.store(url))[-2].endswith("1.0.0 is published already")
        path = tmp_path / "large.zip"
        path.write_bytes(os.urandom(3 * tiny_parts + 7))
        to = shop.store(url)
        begun = upload.start(to, path, "large.zip")
        upload.send(to, begun, 1, lambda count: None)
        upload.upload(shop.store(url), [(path, "large.zip")], lambda count: None)
        assert shop.read("large.zip") == path.read_bytes()
        publisher.withdraw(shop.store(url), "1.0.0", "loses data", shop.key)
    assert shop.index()["latest"]["release"] == ""


def test_what_a_store_refuses_is_asked_once(shop: Shop) -> None:
    refused: list[str] = []
    with fronted(shop, STORES["Backblaze B2 of before conditions"]) as url:
        to = shop.store(url)
        to.client.meta.events.register(
            "after-call.s3.PutObject",
            lambda http_response, **more: refused.append(str(http_response.status_code)),
        )
        for number in range(3):
            to.write(f"{number}", b"x", s3.BRIEFLY, "")
    assert (to.checksums, to.conditions) == (False, False)
    # With a SHA-256 and a condition, without the first, without the second, without both.
    assert refused == ["400", "501", "400", "200", "200", "200"]


def test_two_publishers_at_once_where_conditions_are_kept(
    shop: Shop, folder: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fronted(shop, STORES["AWS S3"]) as url:
        to = shop.store(url)
        write = to.write
        others: list[str] = []

        def late(key: str, *words: Any) -> None:
            if key == "index.json" and not others:
                others.extend(shop.send(second, shop.store(url)))
            write(key, *words)

        monkeypatch.setattr(to, "write", late)
        shop.send(folder, to)
    assert others
    assert [one["version"] for one in shop.index()["releases"]] == ["1.1.0", "1.0.0"]
    shop.check()


def test_a_store_of_which_nothing_may_be_removed(shop: Shop) -> None:
    rules = Rules(operations={"GET uploads": (403, "AccessDenied")})
    with fronted(shop, rules) as url:
        assert answers(probe.probe(shop.store(url)))["uploads"] == "not allowed"


def test_the_command_shows_the_table(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with fronted(shop, STORES["Backblaze B2 of before conditions"]) as url:
        monkeypatch.setattr(publish, "load", lambda: shop.settings(url))
        cli.run(["publish", "--check"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"s3://{shop.bucket}/vm/"
    assert lines[1].split("  ")[0] == "ability"
    assert len(lines) == 2 + len(NAMES)
    (row,) = [line for line in lines if "If-Match" in line]
    assert row.endswith(
        "refused  of two releases at once, the index may lose one; publish one at a time"
    )
    (row,) = [line for line in lines if line.startswith("ETag is the MD5")]
    assert row.endswith("  yes")
    with pytest.raises(SystemExit):
        cli.run(["publish"])
    assert "expected: one version; type: ./inv publish VERSION, --renew or --check" in (
        capsys.readouterr().err
    )


def test_a_clock_that_is_off_shows_before_the_store_refuses_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = probe.time.time
    monkeypatch.setattr(probe.time, "time", lambda: now() + 300)
    assert answers(probe.probe(shop.store()))["clock"] == "no"
    monkeypatch.undo()
    later = botocore.auth.get_current_datetime
    hour = datetime.timedelta(hours=1)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *words: later(*words) + hour)
    with pytest.raises(UserError, match="this computer's clock is wrong"):
        probe.probe(shop.store())


@pytest.mark.parametrize(
    ("style", "address"),
    [
        ("", "https://store.example.org/some-bucket/x/"),
        ("path", "https://store.example.org/some-bucket/x/"),
        ("virtual", "https://some-bucket.store.example.org/x/"),
    ],
)
def test_a_bucket_is_in_the_path_or_in_the_hosts_name(shop: Shop, style: str, address: str) -> None:
    settings = shop.settings("https://store.example.org").store
    settings = settings.model_copy(update={"style": style})
    assert Site("s3://some-bucket/x", settings)._base == address
