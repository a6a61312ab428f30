"""A full disk on the user's side, and memory that does not grow with the files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
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
        download.download(site, key, folder=tmp_path, say=print, **wanted)
    web.kill()
    assert [path.stat().st_size for path in (tmp_path / "1.0.0").iterdir()] == [0]


STALLED = """
import sys
from pathlib import Path
from hyraxvm import download, publishing
from hyraxvm.parallel import together
from hyraxvm.store import Store

what, url, part = sys.argv[1:]
settings = publishing.Store(
    bucket="some-bucket", prefix="", endpoint=url, region="", profile="", cache=""
)
site = download.Site(f"{url}/x", settings)
calls = {
    "text": lambda: site.text("index.json"),
    "fetch": lambda: site.fetch("large.zip", Path(part), 10**6, lambda count: None),
    "ask": lambda: Store(settings).ask("head_object", "x"),
    "chunks": lambda: Store(settings).fetch("x", Path(part), 10**6, lambda count: None),
    "keys": lambda: list(Store(settings).keys("")),
}
try:
    together([calls[what]] * 2, 2)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
SILENT, BEGUN = b"", b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 1000000\r\n\r\nbegun"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        *[(what, SILENT) for what in ("text", "fetch", "ask", "chunks", "keys")],
        *[(what, BEGUN) for what in ("text", "fetch", "chunks")],
    ],
)
def test_a_server_that_stalls_does_not_hold_who_presses_ctrl_c(
    tmp_path: Path, what: str, said: bytes
) -> None:
    """A link may be silent for a minute: that is no fault of it, but nobody waits for it here."""
    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", STALLED, what),
                *(f"http://127.0.0.1:{listener.getsockname()[1]}", str(tmp_path / "part")),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            listener.settimeout(30)
            for _ in range(2):
                client, _ = listener.accept()
                client.recv(65536)
                client.sendall(said)
                clients.append(client)
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            begun = time.monotonic()
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
            for client in clients:
                client.close()
    assert time.monotonic() - begun < 5
    assert out == "interrupted\n"
    assert process.returncode == 0
