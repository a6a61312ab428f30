"""`./inv clean`: removing what the pipeline has made."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from hyraxvm.core import cache
from hyraxvm.core.workspace import Workspace
from hyraxvm.publish import download, nightly
from hyraxvm.release import assemble
from hyraxvm.stages import pipeline

# Whoever needs what is in artifacts/ holds one of these for as long: lock -> who that is.
USERS: Final = {
    pipeline.LOCK: "a build",
    # They build no more while they sign and publish.
    nightly.LOCK: "a nightly",
    assemble.LOCK: "a release",
    assemble.PUBLISHING: "a publish",
    download.LOCK: "a download",
}


def clean(workspace: Workspace, with_cache: bool) -> list[str]:
    """Empty `artifacts/` and, if asked, the cache; returns what was removed, in words.

    Raises `UserError`: one of `USERS` is at work, or a build elsewhere uses the cache.
    """
    said = []
    with ExitStack() as held:
        for name, who in USERS.items():
            busy = f"{who} runs in this checkout; wait for it, or end it"
            held.enter_context(cache.lock(workspace.artifacts / name, busy))
        for path in sorted(workspace.artifacts.iterdir()):
            # Who waits for a lock that is removed, and who makes a new one, would both have it.
            if path.name == "README.md" or path.name.endswith(".lock"):
                continue
            said.append(f"removed {path}")
            cache.remove_tree(path) if path.is_dir() else path.unlink()
    if with_cache:
        said += [f"removed {path}" for path in workspace.cache.clear()]
    return said or ["nothing to remove"]
