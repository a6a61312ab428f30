"""`./inv clean`: remove what the pipeline has made."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from hyraxvm.core import cache
from hyraxvm.core.workspace import Workspace
from hyraxvm.publish import download, nightly
from hyraxvm.release import assemble, folder
from hyraxvm.stages import pipeline

# Each that needs artifacts/ holds its lock for as long: lock -> who holds it.
USERS: Final = {
    pipeline.LOCK: "a build",
    # These hold no build lock while they sign and publish.
    nightly.LOCK: "a nightly",
    assemble.LOCK: "a release",
    folder.PUBLISHING: "a publish",
    download.LOCK: "a download",
}


def clean(workspace: Workspace, with_cache: bool) -> list[str]:
    """Empty `artifacts/` and, if asked, the cache; return what was removed, a line for each.

    Raises `UserError`: one of `USERS` is at work, or a build uses the cache.
    """
    said = []
    with ExitStack() as held:
        for name, who in USERS.items():
            busy = f"{who} runs in this checkout; wait for it, or end it"
            held.enter_context(cache.lock(workspace.artifacts / name, busy))
        for path in sorted(workspace.artifacts.iterdir()):
            # Keep lock files: a process that waits for a deleted one and a process that makes a new
            # one would both think that they hold it.
            if path.name == "README.md" or path.name.endswith(".lock"):
                continue
            said.append(f"removed {path}")
            cache.remove_tree(path) if path.is_dir() else path.unlink()
    if with_cache:
        said += [f"removed {path}" for path in workspace.cache.clear()]
    return said or ["nothing to remove"]
