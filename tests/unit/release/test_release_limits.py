"""A full disk on the user's side, and memory that does not grow with the files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from shop import NAME, Rclone, Shop

from hyraxvm import cache, cli, download, parts, publish
from hyraxvm.errors import UserError
from hyraxvm.paths import ROOT

TRANSFER = """
import sys
from pathlib import Path
from hyraxvm import download, publishing
from hyraxvm.store import Store
from hyraxvm.upload import upload

def peak():
    # In kB.  What getrusage(2) says counts in the process that has started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("VmHWM"))

bucket, url, source, target = sys.argv[1:]
settings = publishing.Store(bucket=bucket, prefix="", endpoint=url, region="", profile="", cache="")
upload(Store(settings), [(Path(source), "large.qcow2")], lambda count: None)
sent = peak()
size = Path(source).stat().st_size
site = download.Site(f"{url}/{bucket}", settings)
digest = site.fetch("large.qcow2", Path(target), size, lambda count: None)
print(sent, peak(), digest)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large.qcow2"
    with path.open("wb") as stream:
        stream.truncate(192 * 2**20)
    top = tmp_path / "data"
    (top / "large-bucket").mkdir(parents=True)
    server = Rclone(top)  # without keys it lets everybody in
    done = subprocess.run(
        [
            *(sys.executable, "-c", TRANSFER, "large-bucket", server.url),
            *(str(path), str(tmp_path / "got")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    server.kill()
    assert done.returncode == 0, done.stderr
    sent, both, digest = done.stdout.split()
    assert digest == cache.file_digest(path)
    assert int(sent) < 200_000  # in kB
    assert int(both) < 200_000
    # Nor where the parts have to be larger, for there may be 10,000 of them at most.
    for size in (2**30, 2**37, 2**40):
        part = parts.part_size(size)
        assert part * max(1, 4 * parts.PART // part) <= 110 * 2**20


def test_a_full_disk_here_is_one_line_and_the_part_is_continued(
    shop: Shop, folder: Path, public: bytes, key: str, tmp_path: Path
) -> None:
    publish.folder(shop.store(), folder, public, shop.settings(), lambda line: None)
    web = Rclone(shop.folder / "vm", kind="http")
    words = ["download", "nfs", "--format", "qcow2", "--to", str(tmp_path), "--url", web.url]
    command = [sys.executable, "-m", "hyraxvm.cli", *words, "--key", key]

    def run(*limit: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*limit, *command],
            cwd=ROOT,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    done = run("prlimit", "--fsize=20000", "--")
    assert done.returncode == 2
    source = folder / f"{NAME}.qcow2"
    (part,) = (tmp_path / "1.0.0").iterdir()
    assert part.name.endswith(".part")
    assert done.stderr.startswith(f"./inv: {part}: File too large; free some space, and type")
    assert done.stderr.count("\n") == 1
    assert part.read_bytes() == source.read_bytes()[:20000]
    done = run()
    web.kill()
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "1.0.0").iterdir()] == [source.name]
    assert (tmp_path / "1.0.0" / source.name).read_bytes() == source.read_bytes()


def test_several_images_side_by_side(
    shop: Shop, folder: Path, public: bytes, key: str, tmp_path: Path
) -> None:
    publish.folder(shop.store(), folder, public, shop.settings(), lambda line: None)
    web = Rclone(shop.folder / "vm", kind="http")
    words = ["download", "nfs", "smb", "nfs", "--format", "ova", "--to", str(tmp_path)]
    cli.run([*words, "--url", web.url, "--key", key])
    names = [NAME, NAME.replace("nfs", "smb")]
    assert sorted(path.name for path in (tmp_path / "1.0.0").iterdir()) == [
        f"{name}.ova" for name in names
    ]
    for name in names:
        got = (tmp_path / "1.0.0" / f"{name}.ova").read_bytes()
        assert got == (folder / f"{name}.ova").read_bytes()
    with pytest.raises(SystemExit) as raised:
        cli.run([*words, "local", "--url", web.url, "--key", key])
    web.kill()
    assert raised.value.code == 2


def test_too_little_room_is_said_before_anything_is_fetched(
    shop: Shop,
    folder: Path,
    public: bytes,
    key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish.folder(shop.store(), folder, public, shop.settings(), lambda line: None)
    web = Rclone(shop.folder / "vm", kind="http")
    used = download.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: used._replace(free=1000))
    site = download.Site(web.url, shop.settings().store)
    wanted = {"image": "nfs", "version": "release", "kind": "qcow2", "unpack": False}
    with pytest.raises(UserError, match="0 MB free, 0 MB are needed; free some space, or name"):
        download.download(site, key, folder=tmp_path, say=print, **wanted)  # type: ignore[arg-type]
    web.kill()
    assert [path.stat().st_size for path in (tmp_path / "1.0.0").iterdir()] == [0]
