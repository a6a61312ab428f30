"""`./inv clean`: removing what the pipeline has made."""

from __future__ import annotations

from hyraxvm import cache
from hyraxvm.paths import ARTIFACTS, cache_root


def clean(with_cache: bool) -> list[str]:
    """Empty `artifacts/` and, if asked, the cache; returns what was removed, in words.

    Raises `UserError`: a build is running.
    """
    said = []
    with cache.lock(ARTIFACTS / ".lock", "a build runs in this checkout; wait for it, or end it"):
        for path in sorted(ARTIFACTS.iterdir()):
            if path.name in ("README.md", ".lock"):
                continue
            said.append(f"removed {path}")
            cache.remove_tree(path) if path.is_dir() else path.unlink()
    if with_cache and cache_root().exists():
        cache.remove_tree(cache_root())
        said.append(f"removed {cache_root()}")
    return said or ["nothing to remove"]
