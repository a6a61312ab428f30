"""`./inv clean`: removing what the pipeline has made."""

from __future__ import annotations

from hyraxvm import cache, nightly
from hyraxvm.paths import ARTIFACTS


def clean(with_cache: bool) -> list[str]:
    """Empty `artifacts/` and, if asked, the cache; returns what was removed, in words.

    Raises `UserError`: a build or a nightly is running, or a build elsewhere uses the cache.
    """
    said = []
    with (
        # A nightly that publishes builds no more, and needs what is in artifacts/ all the same.
        cache.lock(nightly.LOCK, "a nightly runs in this checkout; wait for it, or end it"),
        cache.lock(ARTIFACTS / ".lock", "a build runs in this checkout; wait for it, or end it"),
    ):
        for path in sorted(ARTIFACTS.iterdir()):
            # Who waits for a lock that is removed, and who makes a new one, would both have it.
            if path.name == "README.md" or path.name.endswith(".lock"):
                continue
            said.append(f"removed {path}")
            cache.remove_tree(path) if path.is_dir() else path.unlink()
    if with_cache:
        said += [f"removed {path}" for path in cache.clear()]
    return said or ["nothing to remove"]
