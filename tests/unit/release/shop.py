"""What releases are tested with: a real store, a signing key, tiny images, a bad network."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hyraxvm import (
    __version__,
    archives,
    boottest,
    cache,
    config,
    download,
    housekeeping,
    index,
    package,
    publishing,
    release,
    server,
    signing,
    tested,
)
from hyraxvm.command import dying_with_parent
from hyraxvm.formats import FORMATS
from hyraxvm.package import SUMS
from hyraxvm.store import Store

RCLONE = str(Path(sys.executable).with_name("rclone"))
ACCESS, SECRET = "TESTACCESSKEY", "test-secret-key"
AUTH = f"{ACCESS},{SECRET}"
NAME = "hyrax-vm-nfs-dapdir1.0.0-debian12-amd64"  # of what `make_image` makes
PACKAGES = {"bash": "5.2", "libstdc++6": "12.2.0-14", "openssh-server": "1:9.2p1-2"}


class Rclone:
    """`rclone serve` over a folder on loopback; it can be killed and started again."""

    def __init__(self, folder: Path, *options: str, kind: str = "s3", fsize: int = 0) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        self._argv = [RCLONE, "serve", kind, "--addr", f"127.0.0.1:{self.port}", *options]
        # Tests change files behind its back.  With 0 it goes round in circles for ever.
        self._argv += ["--config", "", "--vfs-cache-mode", "off", "--dir-cache-time", "10ms", "--"]
        self._argv.append(str(folder))
        self._limit: list[str] = []
        self.limit(fsize)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def limit(self, fsize: int) -> None:
        """From its next start on its disk takes files of so many bytes; 0: of any size."""
        self._limit = ["prlimit", f"--fsize={fsize}", "--"] if fsize else []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            dying_with_parent([*self._limit, *self._argv]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert self._process.poll() is None, "rclone has ended"
            time.sleep(0.02)
        raise AssertionError("rclone does not listen")

    def kill(self) -> None:
        # Whoever takes it ends it: uploads that kill the store do so side by side.
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()


def s3(folder: Path, fsize: int = 0) -> Rclone:
    return Rclone(folder, "--auth-key", AUTH, fsize=fsize)


class Proxy:
    """A bad network before a server: a list of faults, one for each connection, then none.

    A fault is `("cut", n)`: the connection ends after n bytes from the client; `("drop", n)`: after
    n bytes from the server; `("flip", n)`: a bit of the client's byte n changes; or
    `("answer", bytes)`: these are all that the server says.
    """

    def __init__(self, port: int) -> None:
        self.faults: list[tuple[str, Any]] = []
        self.connections = 0
        self.struck: list[str] = []  # the faults that somebody has met
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            fault = self.faults.pop(0) if self.faults else ("none", 0)
            threading.Thread(target=self._serve, args=(client, *fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: str, value: Any) -> None:
        if fault == "answer":
            with client, contextlib.suppress(OSError):
                request = b""
                while b"\r\n\r\n" not in request:
                    request += client.recv(65536)
                self.struck.append(fault)  # first: who reads the answer may look at once
                client.sendall(value)
                # Read what is still coming, or the client sees a reset instead of the answer.
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            return
        upstream = socket.create_connection(("127.0.0.1", self._target))
        limits = {"cut": (value, -1), "drop": (-1, value)}.get(fault, (-1, -1))
        flip = value if fault == "flip" else -1
        ways = [(client, upstream, limits[0], flip), (upstream, client, limits[1], -1)]
        threads = [
            threading.Thread(target=self._pump, args=(fault, *way), daemon=True) for way in ways
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _pump(
        self, fault: str, source: socket.socket, sink: socket.socket, limit: int, flip: int
    ) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if limit >= 0:
                    data = data[: limit - passed]
                if passed <= flip < passed + len(data):
                    at = flip - passed
                    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                    self.struck.append(fault)
                passed += len(data)
                if passed == limit:
                    self.struck.append(fault)
                sink.sendall(data)
                if passed == limit:
                    break
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def answer(status: int, reason: str, code: str) -> bytes:
    """An S3 error, as services send it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told so</Message></Error>"
    return (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()


@dataclass
class Shop:
    """A bucket of its own in the store, and what it takes to release into it."""

    server: Rclone
    bucket: str
    key: str
    prefix: str = "vm/"

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)

    @property
    def folder(self) -> Path:
        """The bucket's folder on the disk."""
        return self.server.folder / self.bucket

    def settings(self, url: str = "", keep: int = 2) -> publishing.Settings:
        return publishing.Settings.model_validate(
            {
                "store": {
                    "bucket": self.bucket,
                    "prefix": self.prefix,
                    "endpoint": url or self.server.url,
                    "region": "",
                    "profile": "",
                    "cache": "",
                },
                "download": {"url": ""},
                "signing": {"key": self.key},
                "nightly": {"keep": keep},
            }
        )

    def store(self, url: str = "") -> Store:
        return Store(self.settings(url).store)

    def objects(self) -> set[str]:
        """What readers see, without the prefix."""
        top = self.folder / self.prefix
        return {
            str(path.relative_to(top))
            for path in top.rglob("*")
            if path.is_file() and not path.name.startswith(".rclone")
        }

    def read(self, key: str) -> bytes:
        return (self.folder / self.prefix / key).read_bytes()

    def index(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.read("index.json"))
        return found

    def check(self, page: bool = True) -> None:
        """All that the index and the page name is there, and has the digests that are signed."""
        for one in self.index()["releases"]:
            listed = self.read(f"{one['path']}/{SUMS}").decode().splitlines()
            for line in listed:
                digest, name = line.split("  ")
                path = self.folder / self.prefix / one["path"] / name
                assert cache.file_digest(path) == digest, path
            assert {file["name"] for image in one["images"] for file in image["files"]} <= {
                line.split("  ")[1] for line in listed
            }
        links = re.findall(r'href="([^"#]+)"', self.read("index.html").decode())
        for link in links if page else ():
            assert (self.folder / self.prefix / link).is_file(), link


def make_image(
    folder: Path,
    image: str = "nfs",
    *,
    packages: dict[str, str] | None = None,
    seed: bytes = b"",
    refresh: str = "",
) -> tested.Built:
    """Put files and a manifest of an image into `folder`, as the packaging stage does."""
    recipe = config.recipe(config.load(), image, "dapdir")
    described = server.preview(recipe).model_dump()
    described |= {"image_digest": f"sha256:{'ab' * 32}", "packages": {"pypi/numpy": "2.3.5"}}
    name = f"hyrax-vm-{image}-dapdir1.0.0-debian12-amd64"
    files = []
    for chosen in FORMATS.values():
        path = folder / f"{name}{chosen.suffix}"
        text = folder / "disk"
        text.write_bytes((chosen.name.encode() + seed) * 5000)
        if path.suffix == ".zip":
            archives.pack_zip(path, name, [text], "2026-01-02T03:04:06Z")
        else:
            path.write_bytes(text.read_bytes())
        text.unlink()
        entry = {"name": path.name, "size": path.stat().st_size, "format": chosen.name}
        files.append({**entry, "sha256": cache.file_digest(path), "contents": []})
    manifest = {
        "schema": 1,
        "name": name,
        "release": {
            "VERSION": __version__,
            "IMAGE": image,
            "SERVER": "dapdir",
            "SERVER_TITLE": recipe.server.title,
            "BASE": "debian-12",
            "ARCH": "amd64",
            "GIT_REVISION": "0123456789ab",
            "BUILD_DATE": "2026-01-02T03:04:06Z",
        },
        "server": described,
        "made_from": {"refresh": refresh, "server_files": cache.digest({})},
        "packages": packages or PACKAGES,
        "files": files,
    }
    keys = tested.keys(recipe, manifest)
    for entry in files:
        entry["key"] = keys[entry["format"]]
    (folder / f"{name}.manifest.json").write_text(json.dumps(manifest))
    return tested.Built(recipe, manifest)


def passed(path: Path, reports: Path) -> None:
    """Leave the verdict of a boot test, as one that passed does."""
    folder = reports / path.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "verdict.json").write_text(json.dumps({"key": boottest.key(path)}))


@contextlib.contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """`artifacts/` elsewhere, for as long as it lasts."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (download, housekeeping, release, tested):
            patch.setattr(module, "ARTIFACTS", folder)
        patch.setattr(release, "RELEASES", folder / "releases")
        patch.setattr(package, "ARTIFACTS", folder)
        patch.setattr(boottest, "REPORTS", folder / "reports")
        yield folder


def assemble(
    folder: Path, version: str, built: Sequence[tested.Built], key: str, **more: Any
) -> Path:
    with workshop(folder):
        return release.assemble(
            version,
            built,
            **{
                "revision": "0123456789ab" + "0" * 28,
                "key": key,
                "text": "- Something new.",
                "previous": "",
                "old": {},
                "on_line": lambda line: None,
                **more,
            },
        )


def bare(folder: Path, key: str, name: str, data: bytes) -> Path:
    """A signed release of one file and nothing else; its version is the folder's name."""
    folder.mkdir()
    (folder / name).write_bytes(data)
    kind = next(one.name for one in FORMATS.values() if name.endswith(one.suffix))
    digest = cache.file_digest(folder / name)
    image = index.Image(
        image="nfs",
        title="An image",
        access="nfs",
        name="image",
        base="debian-12",
        arch="amd64",
        server=index.Server(name="dapdir", version="1", title="dapdir"),
        inputs="0" * 64,
        files=[index.File(name=name, format=kind, size=len(data), sha256=digest)],
        manifest="image.manifest.json",
        sbom="image.cdx.json",
    )
    entry = index.Release(
        version=folder.name,
        kind="release",
        path=index.path(folder.name),
        date="2026-01-02T03:04:06Z",
        revision="0",
        key=key,
        images=[image],
    )
    (folder / index.RELEASE).write_bytes(index.dump(entry))
    sign(folder, key)
    return folder


def sign(folder: Path, key: str) -> None:
    """Sign what is in a folder, as it is now."""
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(SUMS)]
    lines = [f"{cache.file_digest(path)}  {path.name}\n" for path in files]
    (folder / SUMS).write_text("".join(lines))
    signing.sign(folder / SUMS, key)


def gpg(*words: str) -> str:
    done = subprocess.run(
        ["gpg", "--batch", *words], capture_output=True, text=True, check=True, env=os.environ
    )
    return done.stdout


@contextlib.contextmanager
def keyring() -> Iterator[str]:
    """A home of gpg's; what protects its secret keys is made in no time."""
    # Not pytest's folder: the path of the agent's socket may have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:
        Path(home, "gpg-agent.conf").write_text("s2k-count 65536\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GNUPGHOME", home)
            yield home
            subprocess.run(["gpgconf", "--kill", "all"], check=True)


def make_key(name: str, *options: str, expires: str = "never", passphrase: str = "") -> str:
    """Make a key that signs; returns its fingerprint."""
    secret = ("--pinentry-mode", "loopback", "--passphrase", passphrase)
    gpg(*secret, *options, "--quick-gen-key", name, "ed25519", "sign", expires)
    listed = gpg("--with-colons", "--list-keys", f"={name}")
    return re.findall(r"^fpr:+([0-9A-F]{40}):", listed, re.MULTILINE)[0]


def dies(client: Any, step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a child that dies by SIGKILL instead of sending request number `step`.

    Returns whether it died; False: there were not so many requests, and the work is done.
    """
    child = os.fork()
    if child == 0:
        requests = itertools.count(1)

        def count(**more: Any) -> None:
            if next(requests) >= step:
                os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            client.meta.events.register("before-send.s3", count)
            work()
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0
