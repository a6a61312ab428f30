"""The stage cache in a bucket: one machine makes, others fetch, and no one trusts the bucket."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from hyraxvm.config import publish
from hyraxvm.core import cache
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import UserError
from hyraxvm.store import stage_cache
from hyraxvm.store.s3 import Store
from hyraxvm.store.stage_cache import CacheEntry, SharedCache
from tests.unit.release.shop import Shop
from tests.unit.store.faults import Proxy, dies
from tests.unit.store.loopback import AUTH, Rclone, s3

SECRET = b"0123456789abcdef0123456789abcdef"
KEY = "ab" * 32


class Machine:
    """A computer that builds: it has its own local cache, and shares the bucket."""

    def __init__(self, home: Path, shop: Shop, secret: bytes = SECRET, url: str = "") -> None:
        self.home = home
        self.said: list[str] = []
        self.made: list[str] = []
        settings = shop.settings(url).store
        self.remote = SharedCache(Store(settings, attempts=2), secret, self.said.append)

    def produce(self, stage: str = "rootfs", key: str = KEY, text: bytes = b"x" * 9000) -> Path:
        def make(work: Path) -> None:
            self.made.append(stage)
            assert list(work.iterdir()) == []
            (work / "rootfs.tar").write_bytes(text)
            (work / "packages.json").write_text(json.dumps({"bash": "5.2"}))

        folder = StageCache(self.home, self.remote).produce(stage, key, make)
        assert sorted(path.name for path in folder.iterdir()) == ["packages.json", "rootfs.tar"]
        # Neither archives nor partial results remain.
        left = [path.name for path in folder.parent.iterdir() if path.is_dir()]
        assert left == [folder.name]
        return folder


@pytest.fixture
def machine(shop: Shop, tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    count = 0

    def new(**more: Any) -> Machine:
        nonlocal count
        count += 1
        return Machine(tmp_path / str(count), more.pop("shop", shop), **more)

    yield new


def test_what_one_machine_has_made_the_others_fetch(
    machine: Callable[..., Machine], shop: Shop
) -> None:
    text = os.urandom(9_000_000)  # in two parts
    first, second = machine(), machine()
    first.produce(text=text)
    assert first.made == ["rootfs"]
    assert "rootfs: 9.0 MB kept in" in first.said[0]
    folder = second.produce(text=b"not made")
    assert second.made == []
    assert (folder / "rootfs.tar").read_bytes() == text
    assert json.loads((folder / "packages.json").read_text()) == {"bash": "5.2"}
    assert "rootfs: 9.0 MB fetched in" in second.said[0]
    second.produce()
    assert len(second.said) == 1  # now it is in the local cache
    machine().produce("server")  # the same key of another stage
    assert {name.split("/")[0] for name in shop.objects()} == {"rootfs", "server"}


def test_what_is_local_stays_here(
    machine: Callable[..., Machine], shop: Shop, tmp_path: Path
) -> None:
    StageCache(tmp_path, machine().remote).produce(
        "oci", KEY, lambda work: (work / "layout").mkdir(), local=True
    )
    assert shop.objects() == set()


def entry_of(shop: Shop) -> Path:
    return shop.folder / f"vm/rootfs/{KEY}.json"


def archive_of(shop: Shop) -> Path:
    return next((shop.folder / "vm/rootfs").glob("*.zst"))


def edit(shop: Shop, **more: Any) -> None:
    found = json.loads(entry_of(shop).read_text())
    entry_of(shop).write_text(json.dumps({**found, **more}))


def flip(shop: Shop) -> None:
    data = bytearray(archive_of(shop).read_bytes())
    data[len(data) // 2] ^= 1
    archive_of(shop).write_bytes(data)


def other_stage(shop: Shop) -> None:
    """Put a true entry under the name of another stage."""
    for path in (shop.folder / "vm/server").iterdir():
        name = path.name.replace("cd" * 32, KEY)
        shutil.copyfile(path, shop.folder / "vm/rootfs" / name)


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (lambda shop: entry_of(shop).write_text("{"), "is not an entry"),
        (lambda shop: entry_of(shop).write_text("[" * 100_000), "is not an entry"),
        (lambda shop: edit(shop, sha256="0" * 64), "was not put there with the key"),
        (lambda shop: edit(shop, unpacked=2**30), "was not put there with the key"),
        (lambda shop: edit(shop, code="0" * 64), "was not put there with the key"),
        (lambda shop: edit(shop, size=-1), "is not an entry"),
        (lambda shop: edit(shop, size=2**50), "is not an entry"),
        (other_stage, "was not put there with the key"),
        (flip, "its archive was changed"),
        (lambda shop: archive_of(shop).write_bytes(b""), "has 0 bytes instead of"),
        (lambda shop: os.truncate(archive_of(shop), 100), "has 100 bytes instead of"),
        (lambda shop: archive_of(shop).open("ab").write(b"more"), "bytes instead of"),
        (lambda shop: archive_of(shop).unlink(), ""),
    ],
)
def test_an_entry_that_is_not_as_it_was_kept_is_made_anew(
    machine: Callable[..., Machine], shop: Shop, tamper: Callable[[Shop], None], told: str
) -> None:
    text = os.urandom(9000)
    first, second, third = machine(), machine(), machine()
    first.produce(text=text)
    first.produce("server", "cd" * 32)
    tamper(shop)
    assert (second.produce(text=text) / "rootfs.tar").read_bytes() == text
    assert second.made == ["rootfs"]
    *notices, kept = second.said
    assert len(notices) == (1 if told else 0), notices
    for line in notices:
        assert line.startswith(f"stage cache: s3://{shop.bucket}/vm/rootfs/{KEY}")
        assert told in line
        assert line.endswith("; made again")
        assert "\n" not in line
    assert "kept in" in kept
    assert (third.produce() / "rootfs.tar").read_bytes() == text
    assert third.made == []


def test_entries_of_another_key_are_not_believed(machine: Callable[..., Machine]) -> None:
    stranger, ours = machine(secret=b"f" * 32), machine()
    stranger.produce(text=b"evil")
    assert (ours.produce(text=b"good") / "rootfs.tar").read_bytes() == b"good"
    assert "was not put there with the key of HYRAX_VM_CACHE_KEY_FILE; made again" in ours.said[0]


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([member("../rootfs.tar")], "expected: flat names"),
        ([member("/etc/passwd")], "expected: flat names"),
        ([member("a/b")], "expected: flat names"),
        ([member("link", tarfile.SYMTYPE, "/etc/passwd")], "expected: plain files"),
        ([member("link", tarfile.LNKTYPE, "/etc/passwd")], "expected: plain files"),
        ([member("device", tarfile.CHRTYPE)], "expected: plain files"),
        ([member("folder", tarfile.DIRTYPE)], "expected: plain files"),
        ([member("same"), member("same")], "a name occurs twice"),
        ([], "0 members"),
        (None, "exit status"),
    ],
    ids=[
        *("parent", "absolute", "folder", "symlink", "hard link", "device", "directory", "twice"),
        *("empty", "longer than said"),
    ],
)
def test_an_archive_holds_plain_files_and_nothing_else(
    machine: Callable[..., Machine],
    shop: Shop,
    tmp_path: Path,
    members: list[tarfile.TarInfo] | None,
    told: str,
) -> None:
    """This holds even for an entry made with the right key."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info in members or [member("x")]:
            if members != []:
                archive.addfile(info, io.BytesIO())
    data = buffer.getvalue()
    unpacked = len(data) if members is not None else 100
    packed = subprocess.run(["zstd", "-q"], input=data, capture_output=True, check=True).stdout
    path = tmp_path / "packed"
    path.write_bytes(packed)
    here = machine()
    entry = CacheEntry(
        sha256=cache.file_digest(path), size=len(packed), unpacked=unpacked, code="0" * 64
    )
    code = here.remote._code("rootfs", KEY, entry)
    top = shop.folder / "vm/rootfs"
    top.mkdir(parents=True)
    (top / f"{KEY}.{entry.sha256}.tar.zst").write_bytes(packed)
    (top / f"{KEY}.json").write_text(entry.model_copy(update={"code": code}).model_dump_json())
    assert (here.produce(text=b"good") / "rootfs.tar").read_bytes() == b"good"
    assert told in here.said[0]
    assert here.said[0].endswith("; made again")


def test_a_store_that_is_away_is_told_once_and_asked_no_more(
    mortal: Shop, machine: Callable[..., Machine], quick: None
) -> None:
    here = machine(shop=mortal)
    mortal.server.kill()
    for stage in ("rootfs", "server", "disk"):
        here.produce(stage)
    assert here.made == ["rootfs", "server", "disk"]
    assert len(here.said) == 1
    assert "Could not connect to the endpoint URL" in here.said[0]
    assert here.said[0].endswith("; this run goes on without it")


def test_a_store_that_goes_away_in_between(
    mortal: Shop, machine: Callable[..., Machine], quick: None
) -> None:
    here = machine(shop=mortal)
    here.remote.store.client.meta.events.register(
        "before-call.s3.PutObject", lambda **more: mortal.server.kill()
    )
    here.produce("rootfs")
    here.produce("server")
    assert here.made == ["rootfs", "server"]
    assert here.said[0].endswith("; this run keeps nothing there")
    assert here.said[1].endswith("; this run goes on without it")
    assert len(here.said) == 2


@pytest.mark.parametrize("fault", ["full", "read only", "no bucket", "credentials"])
def test_a_store_that_takes_nothing(
    tmp_path: Path,
    key: str,
    machine: Callable[..., Machine],
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    server = s3(tmp_path / "data", fsize=1000 if fault == "full" else 0)
    shop = Shop(server, "small-bucket", key)
    if fault == "read only":
        server.kill()
        server = Rclone(tmp_path / "data", "--auth-key", AUTH, "--read-only")
        shop.server = server
    elif fault == "no bucket":
        shutil.rmtree(shop.folder)
    elif fault == "credentials":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    here = machine(shop=shop)
    for stage in ("rootfs", "server"):
        here.produce(stage, text=os.urandom(5000))
    assert here.made == ["rootfs", "server"]
    assert len(here.said) == 1, here.said
    server.kill()
    assert not [name for name in shop.folder.rglob("*.json") if fault != "no bucket"]


def test_a_connection_that_breaks_is_continued(
    shop: Shop, machine: Callable[..., Machine], quick: None
) -> None:
    text = os.urandom(3_000_000)
    machine().produce(text=text)
    proxy = Proxy(shop.server.port)
    proxy.faults = [("drop", 1_500_000), ("drop", 1_000_000)]
    here = machine(url=proxy.url)
    assert (here.produce() / "rootfs.tar").read_bytes() == text
    assert here.made == []
    assert proxy.connections == 3
    proxy.close()


def test_a_machine_that_dies_while_it_keeps_a_stage(
    machine: Callable[..., Machine], shop: Shop
) -> None:
    text = os.urandom(9000)
    for step in range(1, 20):
        key = f"{step:02x}" * 32
        dying, other = machine(), machine()
        keep = functools.partial(dying.produce, key=key, text=text)
        died = dies(dying.remote.store.client, step, keep)
        # The stage is in its local cache, although the bucket did not take it.
        assert (dying.produce(key=key, text=text) / "rootfs.tar").read_bytes() == text
        assert (other.produce(key=key, text=text) / "rootfs.tar").read_bytes() == text
        assert not [line for line in other.said if "made again" in line]
        if not died:
            assert other.made == []
            break
    else:
        raise AssertionError("it never finished")
    assert step > 3


def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    text = publish.PUBLISH_TOML.read_text()
    assert 'cache = ""' in text
    (tmp_path / "publish.toml").write_text(text.replace('cache = ""', f'cache = "{url}"'))
    monkeypatch.setenv(publish.VARIABLE, str(tmp_path / "publish.toml"))


def test_the_cache_is_the_one_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stage_cache.connect(print) is None
    secret = tmp_path / "secret"
    monkeypatch.setenv(stage_cache.KEY_FILE, str(secret))
    with pytest.raises(UserError, match=r"secret: cannot be read .No such file"):
        stage_cache.connect(print)
    secret.write_text("short\n")
    with pytest.raises(UserError, match=r"at least 32 characters; type: openssl rand -hex 32 >"):
        stage_cache.connect(print)
    secret.write_bytes(SECRET + b"\n")
    with pytest.raises(UserError, match=r"store.cache: is empty"):
        stage_cache.connect(print)
    for url, name in (("s3://stages", "s3://stages/"), ("s3://all/vm/stages", None)):
        settings(tmp_path, monkeypatch, url)
        found = stage_cache.connect(print)
        assert found is not None
        assert found.store.name == (name or f"{url}/")
    for url in ("https://x/y", "s3://A", "s3://stages/../x", "s3://stages//x", "s3://stages/x/"):
        settings(tmp_path, monkeypatch, url)
        with pytest.raises(UserError, match=r"store.cache: "):
            stage_cache.connect(print)


def test_a_stop_is_no_fault_of_the_cache(
    machine: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine()

    def interrupted(*args: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(here.remote, "_keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        here.produce()
    assert here.said == []
