"""A full disk of the user, and memory that does not grow with the files."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyraxvm import cli
from hyraxvm.config import publish
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import ROOT
from hyraxvm.publish import download
from hyraxvm.store import parts
from tests.unit.publish.downloads import get
from tests.unit.release.shop import NAME, Shop, bare
from tests.unit.store.loopback import Rclone

TRANSFER = """
import sys
from pathlib import Path
from hyraxvm.config import publish as publishing
from hyraxvm.core.cache import StageCache
from hyraxvm.core.paths import ROOT
from hyraxvm.core.workspace import Workspace
from hyraxvm.publish import download, publisher
from hyraxvm.publish.site import Site
from hyraxvm.release import signing
from hyraxvm.store.s3 import Store

def peak():
    # In kB.  What getrusage(2) says counts in the process that has started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("VmHWM"))

release, target, key = sys.argv[1:]
settings = publishing.load()
store = Store(settings.store)
artifacts = Path(target).parent / "artifacts"
workspace = Workspace(ROOT, artifacts, StageCache(artifacts / "cache"))
public = signing.public_key(key)
publisher.publish_folder(workspace, store, Path(release), public, settings, lambda line: None)
sent = peak()
download.download(
    download.Reader(artifacts, [key], Path(target).parent / "lists.json"),
    [Site(settings.download.url, settings.store)],
    download.Wanted("nfs", "release", "vmx"),
    Path(target),
    unpack=True,
    say=lambda line: None,
)
print(sent, peak())
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path, key: str) -> None:
    """Measure all that `./inv publish` and `./inv download --unpack` do."""
    disk = os.urandom(2**20) * 256
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:  # stored, not compressed
        archive.writestr("image/disk", disk)
    release = bare(tmp_path / "2.0.0", key, "image.zip", packed.getvalue())
    top = tmp_path / "data"
    (top / "large-bucket").mkdir(parents=True)
    server = Rclone(top)  # without keys rclone needs no credentials
    settings = tmp_path / "publish.toml"
    text = publish.PUBLISH_TOML.read_text()
    for name, value in (
        *(("bucket", "large-bucket"), ("endpoint", server.url), ("key", key)),
        ("url", f"{server.url}/large-bucket"),
    ):
        text = text.replace(f'\n{name} = ""', f'\n{name} = "{value}"')
    settings.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", TRANSFER, str(release), str(tmp_path / "to"), key],
        cwd=ROOT,
        env={**os.environ, publish.VARIABLE: str(settings)},
        capture_output=True,
        text=True,
        check=False,
    )
    server.kill()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "to/2.0.0/image/disk").read_bytes() == disk
    sent, both = map(int, done.stdout.split())
    assert 50_000 < sent < 200_000  # in kB
    assert both < 200_000
    # Nor with larger parts, which large files need: there may be at most 10,000 parts.
    for size in (2**30, 2**37, 2**40):
        part = parts.part_size(size)
        assert part * max(1, 4 * parts.PART // part) <= 110 * 2**20


def test_a_full_disk_here_is_one_line_and_the_part_is_continued(
    shop: Shop, folder: Path, key: str, tmp_path: Path
) -> None:
    shop.send(folder)
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


def test_several_images_side_by_side(shop: Shop, folder: Path, key: str, tmp_path: Path) -> None:
    shop.send(folder)
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
    shop: Shop, folder: Path, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.send(folder)
    web = Rclone(shop.folder / "vm", kind="http")
    used = download.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: used._replace(free=1000))
    with pytest.raises(UserError, match="0 MB free, 0 MB are needed; free some space, or name"):
        get(web.url, key, tmp_path, kind="qcow2")
    web.kill()
    assert [path.stat().st_size for path in (tmp_path / "1.0.0").iterdir()] == [0]


# Forks for each line that it reads, and prints the child's process id and later its status, so that
# the modules are loaded once. The child ends as a program does: after its threads.
STALLED = """
import os
import sys
from pathlib import Path
from hyraxvm.config import publish as publishing
from hyraxvm.core.cache import StageCache
from hyraxvm.core.paths import ROOT
from hyraxvm.core.workspace import Workspace
from hyraxvm.core.parallel import run_parallel
from hyraxvm.publish import download
from hyraxvm.publish.site import Site
from hyraxvm.store.s3 import Store

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        break
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    raise SystemExit

what, url, part, out = line.split()
sys.stdout = open(out, "w")
settings = publishing.StoreSettings(
    bucket="some-bucket", prefix="", endpoint=url, region="", profile="", cache=""
)
site = Site(f"{url}/x", settings)
calls = {
    "text": lambda: site.text("index.json"),
    "fetch": lambda: site.fetch("large.zip", Path(part), 10**6, lambda count: None),
    "ask": lambda: Store(settings).ask("head_object", "x"),
    "chunks": lambda: Store(settings).fetch("x", Path(part), 10**6, lambda count: None),
    "keys": lambda: list(Store(settings).keys("")),
}
try:
    run_parallel([calls[what]] * 2, 2)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
SILENT, BEGUN = b"", b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 1000000\r\n\r\nbegun"


@pytest.fixture(scope="module")
def stalled() -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", STALLED]
    with subprocess.Popen(
        argv, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("what", "said"),
    [
        *[(what, SILENT) for what in ("text", "fetch", "ask", "chunks", "keys")],
        *[(what, BEGUN) for what in ("text", "fetch", "chunks")],
    ],
)
def test_a_server_that_stalls_does_not_hold_who_presses_ctrl_c(
    stalled: subprocess.Popen[str], tmp_path: Path, what: str, said: bytes
) -> None:
    """A silent link is not a fault for a minute, but Ctrl-C must not wait that long."""
    clients: list[socket.socket] = []
    assert stalled.stdin and stalled.stdout
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        print(what, url, tmp_path / "part", tmp_path / "out", file=stalled.stdin, flush=True)
        child = int(stalled.stdout.readline())
        watch = threading.Timer(60, os.kill, (child, signal.SIGKILL))
        watch.start()
        try:
            listener.settimeout(30)
            for _ in range(2):
                client, _ = listener.accept()
                client.recv(65536)
                client.sendall(said)
                clients.append(client)
            time.sleep(0.3)
            os.kill(child, signal.SIGINT)
            begun = time.monotonic()
            status = int(stalled.stdout.readline())
            took = time.monotonic() - begun
        except BaseException:
            os.kill(child, signal.SIGKILL)
            stalled.stdout.readline()
            raise
        finally:
            watch.cancel()
            for client in clients:
                client.close()
    assert took < 5
    assert (tmp_path / "out").read_text() == "interrupted\n"
    assert status == 0
