"""The stages in their order, for several images side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from hyraxvm import boottest, cache, disk, package, provision, rootfs, server, sizes
from hyraxvm.config import Recipe
from hyraxvm.errors import Failure
from hyraxvm.formats import Format, Source, format_of
from hyraxvm.parallel import together
from hyraxvm.paths import ARTIFACTS, LOGS, cache_root
from hyraxvm.progress import Progress

MACHINES = 2  # that are tested at a time; more would only wait for each other


@dataclass(frozen=True)
class Artifact:
    """What `build` made: the file, and the boot test's verdict if it was asked for."""

    path: Path
    verdict: dict[str, object] | None


def build(
    wanted: Sequence[tuple[Recipe, Sequence[Format]]],
    progress: Progress,
    *,
    test: bool = True,
    refresh: str = "",
) -> list[Artifact]:
    """Make images, each in its formats, where inputs have changed; returns them image by image.

    Raises `UserError`: too little disk space, or another build runs in this checkout; `Failure`:
    a tool or a test failed.
    """
    ARTIFACTS.mkdir(exist_ok=True)
    busy = "another build runs in this checkout; wait for it, or end it, and try again"
    with cache.lock(ARTIFACTS / ".lock", busy):
        # A provisioning boot keeps two cores busy.
        machines = threading.Semaphore(max(1, (os.cpu_count() or 1) // 2))
        tasks = [
            partial(
                _artifacts,
                recipe,
                formats,
                progress.named(recipe.name) if len(wanted) > 1 else progress,
                machines,
                refresh,
            )
            for recipe, formats in wanted
        ]
        with cache.in_use():
            paths = [path for made in together(tasks, len(tasks)) for path in made]
        if not test:
            return [Artifact(path, None) for path in paths]
        return _all_tested(paths, progress)


def _all_tested(paths: Sequence[Path], progress: Progress) -> list[Artifact]:
    """Test two files side by side, or two machines of one; a failure does not hide the rest."""
    verdicts = {path: boottest.verdict(path) for path in paths}
    # The zips first: each has several machines.
    new = sorted((p for p in paths if not verdicts[p]), key=lambda p: format_of(p).name != "vmx")
    side_by_side = max(1, min(MACHINES, len(new)))

    def test(path: Path) -> dict[str, object] | Failure:
        name = path.name.removeprefix("hyrax-vm-")
        try:
            with progress.stage(f"boot test of {name}", loud=True) as on_line:
                return boottest.test(path, on_line, MACHINES // side_by_side)
        except Failure as failure:
            return failure

    tried = together([partial(test, path) for path in new], side_by_side)
    results = dict(zip(new, tried, strict=True))
    failures = [f"{p.name}: {r}" for p, r in results.items() if isinstance(r, Failure)]
    if failures:
        raise Failure("\n".join(failures))
    return [Artifact(p, verdicts[p] or cast(dict[str, object], results[p])) for p in paths]


def _artifacts(
    recipe: Recipe,
    formats: Sequence[Format],
    progress: Progress,
    machines: threading.Semaphore,
    refresh: str,
) -> list[Path]:
    def log(stage: str) -> Path:
        path = LOGS / f"{recipe.name}-{recipe.server_name}-{stage}.log"
        path.unlink(missing_ok=True)
        return path

    root_key = rootfs.key(recipe, refresh)
    server_key = server.key(recipe, refresh)
    disk_key = disk.key(recipe, root_key, server_key)
    if not (cache.contains("rootfs", root_key) and cache.contains("server", server_key)):
        cache.check_space(cache_root(), ARTIFACTS)

    def make_rootfs() -> Path:
        with progress.stage("rootfs") as on_line:
            return rootfs.build(recipe, log("rootfs"), on_line, refresh)

    def make_server() -> server.Server:
        with progress.stage("server") as on_line:
            # Not every line of pulling, but what each line of the trim list has saved.
            return server.build(recipe, log("server"), on_line, refresh, progress.say)

    # Both use one core most of the time.
    both = together([make_rootfs, make_server], 2)
    tar, served = cast(tuple[Path, server.Server], tuple(both))

    provision_key = provision.key(recipe, disk_key, served.image)
    with progress.stage("disk") as on_line:
        made = disk.build(recipe, disk_key, tar, served, log("disk"), on_line)
    with machines, progress.stage("provision", loud=True) as on_line:
        master = provision.build(
            recipe, provision_key, made, served.image, log("provision"), on_line
        )
    release = package.read_release(master.parent / "release.env")
    with progress.stage("package") as on_line:
        return package.build(
            Source(recipe, served.image, master, provision_key, release, refresh),
            formats,
            packages=rootfs.packages(tar),
            timings=dict(progress.timings),
            largest=partial(sizes.largest, tar, served.squashfs),
            log=log("package"),
            on_line=on_line,
        )
