"""Helpers that download what the tests have published."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hyraxvm.config import publish
from hyraxvm.publish import download, publisher, signed_index
from hyraxvm.publish.site import Site
from hyraxvm.release import index, signing
from tests.unit.store.faults import Proxy
from tests.unit.store.loopback import Rclone


def get(
    urls: str | Site | Sequence[str | Site],
    key: str,
    to: Path,
    artifacts: Path | None = None,
    *more_keys: str,
    unpack: bool = False,
    said: list[str] | None = None,
    **more: str,
) -> Path:
    time.sleep(0.02)  # until rclone reads the folder again, see loopback.py
    several = [urls] if isinstance(urls, str | Site) else urls
    settings = publish.load().store
    sites = [Site(one, settings) if isinstance(one, str) else one for one in several]
    reader = download.Reader(
        artifacts or to.parent / "artifacts",
        [key, *more_keys],
        signed_index.memory(),
    )
    wanted = download.Wanted(**{"image": "nfs", "version": "release", "kind": "vmx", **more})
    lines = said if said is not None else []
    return download.download(reader, sites, wanted, to, unpack, lines.append)


def sign_index(path: Path, key: str, **more: Any) -> None:
    """Sign an index that a test has changed, as a publisher does; `more` are other fields."""
    found = index.read_index(path.read_bytes(), "").model_copy(update={"key": key})
    made = publisher.signed(found, "", "")
    if more:
        plain = made.model_copy(update={**more, "signature": ""})
        text = signing.sign_text(index.dump(plain), key)
        made = plain.model_copy(update={"signature": text})
    path.write_bytes(index.dump(made))


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def behind(web: Rclone, url: str, *faults: tuple[str, Any]) -> Iterator[Site]:
    """Yield a site of `web` behind a bad network; its faults hit the file and later requests."""
    with contextlib.closing(Proxy(web.port)) as proxy:
        proxy.faults = [*[("none", 0)] * 6, *faults]
        site = Site(url.replace(web.url, proxy.url), publish.load().store)
        # A new connection for each request, so that the faults hit the file.
        site._session.headers["Connection"] = "close"
        yield site
