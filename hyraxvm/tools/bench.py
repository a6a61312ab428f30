"""`./inv bench transfer`: publishing and downloading next to `rclone copy` of the same files."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from hyraxvm.config.publish import StoreSettings
from hyraxvm.core import cache
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.parallel import run_parallel
from hyraxvm.core.process import dying_with_parent, output
from hyraxvm.publish.site import Site
from hyraxvm.store.s3 import WORKERS, Store
from hyraxvm.store.upload import upload

RCLONE: Final = Path(sys.executable).with_name("rclone")
FILES: Final = 4
BUCKET: Final = "bench-transfer"
ACCESS: Final = "BENCHACCESSKEY"
SECRET: Final = "bench-secret-key"  # noqa: S105 - of a store that lives for this run
ROUNDS: Final = 3  # of which the median counts


def transfer(megabytes: int) -> list[str]:
    """Send and fetch `megabytes` (10^6 bytes) in a few files; return the report.

    Raises `UserError`: the size is too small; `Failure`: rclone is missing, or does not answer.
    """
    if megabytes < FILES:
        raise UserError(f"--size {megabytes}: too small; expected: {FILES} megabytes or more")
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-bench-") as work:
        folder = Path(work, "files")
        folder.mkdir()
        files = [folder / f"{number}.bin" for number in range(FILES)]
        for path in files:
            with path.open("wb") as sink:
                for _ in range(megabytes // FILES):
                    sink.write(os.urandom(10**6))
        size = sum(path.stat().st_size for path in files)
        digests = {path: cache.file_digest(path) for path in files}
        top = Path(work, "store")
        (top / BUCKET).mkdir(parents=True)
        with _server(top) as url, _credentials():
            store_settings = StoreSettings(
                bucket=BUCKET, prefix="", endpoint=url, region="us-east-1", profile="", cache=""
            )
            remote = (
                f":s3,provider=Rclone,endpoint='{url}',access_key_id={ACCESS},"
                f"secret_access_key={SECRET}:{BUCKET}"
            )
            rounds = itertools.count()
            store = Store(store_settings)

            def fresh(name: str) -> Path:
                target = Path(work, name)
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir()
                return target

            def publish() -> None:
                number = next(rounds)
                # A new folder each time: the store, and rclone, remember what is in the old ones.
                upload(store, [(path, f"{number}/{path.name}") for path in files], _pass)

            def fetch() -> None:
                target = fresh("fetched")
                site = Site(f"s3://{BUCKET}/0", store_settings)

                def one(path: Path) -> None:
                    size = path.stat().st_size
                    digest = site.fetch(path.name, target / path.name, size, _pass)
                    if digest != digests[path]:
                        raise Failure(f"{path.name}: came back changed")

                run_parallel([partial(one, path) for path in files], WORKERS)

            def copy(source: str, target: str) -> None:
                output([str(RCLONE), "copy", "--config", "", source, target], deadline=600)

            up, up_rclone = _medians(publish, lambda: copy(str(folder), f"{remote}/{next(rounds)}"))
            down, down_rclone = _medians(fetch, lambda: copy(f"{remote}/0", str(fresh("copied"))))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return [
        f"publish   {_rate(size, up)}, rclone copy {_rate(size, up_rclone)}: {up_rclone / up:.2f}",
        f"download  {_rate(size, down)}, rclone copy {_rate(size, down_rclone)}: "
        f"{down_rclone / down:.2f}",
        f"memory    {memory:.0f} MB at most",
    ]


def _pass(count: int) -> None:
    """Show no progress: that would be measured too."""


def _medians(*runs: Callable[[], None]) -> list[float]:
    """Return the median run time of each function, in seconds.

    Runs are interleaved, so that background load affects all functions alike.
    """
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, taken in zip(runs, times, strict=True):
            started = time.monotonic()
            run()
            taken.append(time.monotonic() - started)
    return [statistics.median(taken) for taken in times]


def _rate(size: int, seconds: float) -> str:
    return f"{size / 1e6 / seconds:.0f} MB/s"


@contextmanager
def _credentials() -> Iterator[None]:
    """Have boto3 find the credentials of this store, not this user's, inside this block."""
    before = dict(os.environ)
    os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _server(top: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(RCLONE), "serve", "s3", "--config", "", "--addr", f"127.0.0.1:{port}"]
    # Without keys it lets everybody in, as users of a release have no key.
    process = subprocess.Popen(dying_with_parent([*command, str(top)]), stderr=subprocess.DEVNULL)
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
