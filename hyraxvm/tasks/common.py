"""What several tasks share: how they fail, and how they read their arguments."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hyraxvm.core.errors import Failure, UserError

if TYPE_CHECKING:
    from hyraxvm.config.images import Config
    from hyraxvm.core.progress import Progress
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.stages.server.choice import Choice

FORMAT_HELP: Final = "only this format (see ./inv list), repeatable; default: all"
BASE_HELP: Final = "guest's system, a base of images.toml (see ./inv list); default: the image's"
ARCH_HELP: Final = "guest's architecture, one of the base's; default: the base's first choice"


def reported(body: Callable[..., None]) -> Callable[..., None]:
    """Turn an expected failure into one message and its exit status."""

    @functools.wraps(body)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            body(*args, **kwargs)
        except Failure as failure:
            print(f"./inv: {failure}", file=sys.stderr)
            raise SystemExit(failure.status) from None
        except KeyboardInterrupt:
            print("./inv: interrupted; nothing half-made is left", file=sys.stderr)
            raise SystemExit(130) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            print(f"./inv: {where}{error.strerror or error}", file=sys.stderr)
            raise SystemExit(1) from None

    return wrapper


def files(names: Sequence[str], task: str) -> list[Path]:
    """Return the files that a task is for; raise `UserError` if none is named."""
    if not names:
        raise UserError(f"no file is named; type: ./inv {task} FILE...")
    return [Path(name) for name in names]


def refuse(reasons: Sequence[str]) -> None:
    """Raise `UserError` with a line for each reason, if there is one."""
    if reasons:
        raise UserError("\n./inv: ".join(reasons))


def read_table() -> Config:
    """Read and check images.toml, with what it says of formats."""
    from hyraxvm import formats
    from hyraxvm.config import images

    return formats.check(images.load())


def choose_server(
    workspace: Workspace,
    server: str | None = None,
    server_image: str | None = None,
    arches: Collection[str] = (),
) -> Choice:
    """Return the server to build, with a notice if it is not the preferred one.

    `arches` are OCI's names of the architectures that are built.
    """
    from hyraxvm.stages.server import choice

    table = read_table()
    chosen = choice.choose(workspace.cache, table, server, server_image, print, arches=arches)
    if chosen.notice:
        print(choice.banner(chosen.notice), file=sys.stderr)
    return chosen


def sharing(workspace: Workspace, say: Callable[[str], None]) -> Workspace:
    """Return the workspace, with the stages of other machines if this one has the key for them."""
    from hyraxvm.core.cache import StageCache
    from hyraxvm.store import stage_cache

    cache = StageCache(workspace.cache.folder, stage_cache.connect(say))
    return dataclasses.replace(workspace, cache=cache)


def progress(workspace: Workspace) -> Progress:
    """Return what shows the stages of a command; it knows how long each took the last time."""
    from hyraxvm.core.progress import Progress

    return Progress(history=workspace.cache.folder / "timings.json")


def today() -> str:
    """Return today's date: as part of a key it makes packages be fetched again once a day."""
    import time

    return time.strftime("%Y-%m-%d")
