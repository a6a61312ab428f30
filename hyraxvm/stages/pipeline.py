"""The stages in their order, for several images side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from hyraxvm.config.images import Recipe
from hyraxvm.core import cache
from hyraxvm.core.errors import Failure
from hyraxvm.core.parallel import together
from hyraxvm.core.paths import ARTIFACTS, LOGS, cache_root
from hyraxvm.core.progress import Progress
from hyraxvm.formats import Format, Source, format_of
from hyraxvm.stages import sizes
from hyraxvm.stages.boot_test import stage as boot_test
from hyraxvm.stages.disk import stage as disk
from hyraxvm.stages.package import stage as package
from hyraxvm.stages.plan import Plan
from hyraxvm.stages.provision import stage as provision
from hyraxvm.stages.rootfs import stage as rootfs
from hyraxvm.stages.server import stage as server

MACHINES = 2  # that are tested at a time; more would only wait for each other


@dataclass(frozen=True)
class Master:
    """What the stages before packaging have made: the root file system, the server, the disk."""

    rootfs: Path
    server: server.Server
    disk: Path


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
                Plan(recipe, refresh),
                formats,
                progress.named(recipe.name) if len(wanted) > 1 else progress,
                machines,
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
    verdicts = {path: boot_test.verdict(path) for path in paths}
    # First those that take the longest: the whole contract is for several machines.
    new = sorted((p for p in paths if not verdicts[p]), key=_is_brief)
    side_by_side = max(1, min(MACHINES, len(new)))

    def test(path: Path) -> dict[str, object] | Failure:
        name = path.name.removeprefix("hyrax-vm-")
        try:
            with progress.stage(f"boot test of {name}", loud=True) as on_line:
                return boot_test.test(path, on_line, MACHINES // side_by_side)
        except Failure as failure:
            return failure

    tried = together([partial(test, path) for path in new], side_by_side)
    results = dict(zip(new, tried, strict=True))
    failures = [f"{p.name}: {r}" for p, r in results.items() if isinstance(r, Failure)]
    if failures:
        raise Failure("\n".join(failures))
    return [Artifact(p, verdicts[p] or cast(dict[str, object], results[p])) for p in paths]


def _is_brief(artifact: Path) -> bool:
    return not format_of(artifact).whole_contract


def _artifacts(
    plan: Plan, formats: Sequence[Format], progress: Progress, machines: threading.Semaphore
) -> list[Path]:
    made = master(plan, LOGS, progress, machines)
    image = made.server.image
    keys = plan.formats(image)
    release = package.read_release(made.disk.parent / "release.env")
    with progress.stage("package") as on_line:
        return package.build(
            Source(plan.recipe, image, made.disk, plan.provision(image), release, plan.refresh),
            formats,
            keys=keys,
            packages=rootfs.packages(made.rootfs),
            timings=dict(progress.timings),
            largest=partial(sizes.largest, made.rootfs, made.server.squashfs),
            log=_log(plan, LOGS, "package"),
            on_line=on_line,
        )


def master(
    plan: Plan, logs: Path, progress: Progress, machines: threading.Semaphore | None = None
) -> Master:
    """Run the stages up to the master of one image; what is cached is not made again.

    `machines` bounds the provisioning boots that run side by side.  Raises `Failure`: a tool
    failed; `UserError`: too little disk space.
    """
    recipe = plan.recipe
    if not (cache.contains("rootfs", plan.rootfs) and cache.contains("server", plan.server)):
        cache.check_space(cache_root(), ARTIFACTS)

    def make_rootfs() -> Path:
        with progress.stage("rootfs") as on_line:
            return rootfs.build(recipe, plan.rootfs, _log(plan, logs, "rootfs"), on_line)

    def make_server() -> server.Server:
        with progress.stage("server") as on_line:
            log = _log(plan, logs, "server")
            # Not every line of pulling, but what each line of the trim list has saved.
            return server.build(recipe, plan.server, log, on_line, progress.say)

    # Both use one core most of the time.
    both = together([make_rootfs, make_server], 2)
    tar, served = cast(tuple[Path, server.Server], tuple(both))
    with progress.stage("disk") as on_line:
        log = _log(plan, logs, "disk")
        made = disk.build(recipe, plan.disk, tar, served, log, on_line)
    with machines or nullcontext(), progress.stage("provision", loud=True) as on_line:
        log = _log(plan, logs, "provision")
        key = plan.provision(served.image)
        done = provision.build(recipe, key, made, served.image, log, on_line)
    return Master(tar, served, done)


def _log(plan: Plan, logs: Path, stage: str) -> Path:
    """The log of a stage, without what an earlier run has written there."""
    path = logs / f"{plan.recipe.name}-{plan.recipe.server_name}-{stage}.log"
    path.unlink(missing_ok=True)
    return path
