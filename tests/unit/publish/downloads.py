"""Helpers that download what the tests have published."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyraxvm.config import publish
from hyraxvm.publish import download
from hyraxvm.publish.site import Site
from tests.unit.store.faults import Proxy
from tests.unit.store.loopback import Rclone


def get(url: str | Site, key: str, to: Path, artifacts: Path | None = None, **more: Any) -> Path:
    time.sleep(0.02)  # until rclone reads the folder again, see loopback.py
    site = Site(url, publish.load().store) if isinstance(url, str) else url
    wanted = {"image": "nfs", "version": "release", "kind": "vmx", "unpack": False, **more}
    artifacts = artifacts or to.parent / "artifacts"
    return download.download(artifacts, site, key, folder=to, say=lambda line: None, **wanted)


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def behind(web: Rclone, url: str, *faults: tuple[str, Any]) -> Iterator[Site]:
    """Yield a site of `web` behind a bad network; its faults hit the file and later requests."""
    with contextlib.closing(Proxy(web.port)) as proxy:
        proxy.faults = [*[("none", 0)] * 5, *faults]
        site = Site(url.replace(web.url, proxy.url), publish.load().store)
        # A new connection for each request, so that the faults hit the file.
        site._session.headers["Connection"] = "close"
        yield site
