"""`./inv bench transfer`: publishing and downloading next to `rclone copy` of the same files."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from hyraxvm import download, publishing
from hyraxvm.command import dying_with_parent, output
from hyraxvm.errors import Failure
from hyraxvm.store import Store

RCLONE: Final = Path(sys.executable).with_name("rclone")
FILES: Final = 4
BUCKET: Final = "bench-transfer"
ACCESS: Final = "BENCHACCESSKEY"
SECRET: Final = "bench-secret-key"  # noqa: S105 - of a store that lives for this run
ROUNDS: Final = 3  # the best one counts: others use this machine too


def transfer(megabytes: int) -> list[str]:
    """Send and fetch `megabytes` (10^6 bytes) in a few files; return the report.

    Raises `Failure`: rclone is not there, or does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-bench-") as work:
        folder = Path(work, "files")
        folder.mkdir()
        files = [folder / f"{number}.bin" for number in range(FILES)]
        for path in files:
            with path.open("wb") as sink:
                for _ in range(megabytes // FILES):
                    sink.write(os.urandom(10**6))
        size = sum(path.stat().st_size for path in files)
        top = Path(work, "store")
        (top / BUCKET).mkdir(parents=True)
        with _server(top) as url:
            publishing_store = publishing.Store(
                bucket=BUCKET, prefix="", endpoint=url, region="us-east-1", profile=""
            )
            # Nothing of the user's own takes part.
            os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
            remote = (
                f":s3,provider=Rclone,endpoint='{url}',access_key_id={ACCESS},"
                f"secret_access_key={SECRET}:{BUCKET}"
            )
            store = Store(publishing_store)

            def empty() -> None:
                shutil.rmtree(top / BUCKET)
                (top / BUCKET).mkdir()

            def fresh(name: str) -> Path:
                target = Path(work, name)
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir()
                return target

            def publish() -> None:
                store.upload([(path, path.name) for path in files], lambda count: None)

            def fetch() -> None:
                target = fresh("fetched")
                address = store._client.generate_presigned_url  # a user's store needs no signature
                for path in files:
                    signed = address("get_object", Params={"Bucket": BUCKET, "Key": path.name})
                    base, _, name = signed.rpartition("/")
                    site = download.Site(base, publishing_store)
                    site.fetch(name, target / path.name, path.stat().st_size, lambda count: None)
                    if download.cache.file_digest(target / path.name) != download.cache.file_digest(
                        path
                    ):
                        raise Failure(f"{path.name}: came back changed")

            def copy(source: str, target: str) -> None:
                output([str(RCLONE), "copy", "--config", "", source, target], deadline=600)

            up_rclone = _best(lambda: copy(str(folder), f"{remote}/"), empty)
            up = _best(publish, empty)
            down_rclone = _best(lambda: copy(f"{remote}/", str(fresh("copied"))), lambda: None)
            down = _best(fetch, lambda: None)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return [
        f"publish   {_rate(size, up)}, rclone copy {_rate(size, up_rclone)}: {up_rclone / up:.2f}",
        f"download  {_rate(size, down)}, rclone copy {_rate(size, down_rclone)}: "
        f"{down_rclone / down:.2f}",
        f"memory    {memory:.0f} MB at most",
    ]


def _best(run: Callable[[], None], prepare: Callable[[], None]) -> float:
    times = []
    for _ in range(ROUNDS):
        prepare()
        started = time.monotonic()
        run()
        times.append(time.monotonic() - started)
    return min(times)


def _rate(size: int, seconds: float) -> str:
    return f"{size / 1e6 / seconds:.0f} MB/s"


@contextmanager
def _server(top: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(RCLONE), "serve", "s3", "--config", "", "--addr", f"127.0.0.1:{port}"]
    environment = {**os.environ, "RCLONE_AUTH_KEY": f'"{ACCESS},{SECRET}"'}
    process = subprocess.Popen(
        dying_with_parent([*command, str(top)]), stderr=subprocess.DEVNULL, env=environment
    )
    try:
        end = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if time.monotonic() > end or process.poll() is not None:
                raise Failure("rclone serve s3 does not answer; ./inv installs it")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
