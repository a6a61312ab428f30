"""The pipeline: runs the stages in order, for several images side by side."""

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
from hyraxvm.config.model import FULL, Artifact
from hyraxvm.core import cache
from hyraxvm.core.errors import Failure
from hyraxvm.core.parallel import run_parallel
from hyraxvm.core.progress import Progress
from hyraxvm.core.workspace import Workspace
from hyraxvm.formats import Format, Source
from hyraxvm.stages import sizes
from hyraxvm.stages.boot_test import stage as boot_test
from hyraxvm.stages.boot_test import verdict
from hyraxvm.stages.disk import stage as disk
from hyraxvm.stages.guest import stage as guest
from hyraxvm.stages.package import stage as package
from hyraxvm.stages.plan import Plan
from hyraxvm.stages.provision import stage as provision
from hyraxvm.stages.rootfs import stage as rootfs
from hyraxvm.stages.server import stage as server
from hyraxvm.stages.workshop import stage as workshop

LOCK = ".lock"  # in artifacts/, while a build runs
MACHINES = 2  # tested at a time; more would only wait for each other


@dataclass(frozen=True)
class Master:
    """The results of the stages before packaging: root file system, squashfs files, disk."""

    rootfs: Path
    server: server.PackedServer
    workshop: Path | None
    disk: Path


def build(
    workspace: Workspace,
    wanted: Sequence[tuple[Recipe, Sequence[Format]]],
    progress: Progress,
    *,
    test: str | None = FULL,
    refresh: str = "",
) -> list[Artifact]:
    """Make and test what `wanted` lists; return the files image by image.

    `wanted` has pairs of an image and its formats.  Only what has new inputs is made again, and
    only what is new is tested; `test=False` tests nothing.  `refresh` is the day for which packages
    are fetched again, or empty.

    `test` is the boot test that each file must pass, one of `LEVELS` of config/model.py, or None.

    Raises `UserError`: too little disk space, this computer cannot run programs of an architecture,
    or another build runs in this checkout; `Failure`: a tool or a test failed.
    """
    for arch in {recipe.arch for recipe, _ in wanted}:
        rootfs.check_host(arch)
    workspace.artifacts.mkdir(exist_ok=True)
    busy = "another build runs in this checkout; wait for it, or end it, and try again"
    with cache.lock(workspace.artifacts / LOCK, busy):
        # A provisioning boot keeps two cores busy.
        machines = threading.Semaphore(max(1, (os.cpu_count() or 1) // 2))
        tasks = [
            partial(
                _artifacts,
                workspace,
                Plan(recipe, refresh, workspace.root),
                formats,
                progress.named(_label(recipe, wanted)) if len(wanted) > 1 else progress,
                machines,
            )
            for recipe, formats in wanted
        ]
        with workspace.cache.in_use():
            paths = [path for made in run_parallel(tasks, len(tasks)) for path in made]
        if test is None:
            return [Artifact(path, None) for path in paths]
        return _all_tested(workspace, paths, progress, test)


def _all_tested(
    workspace: Workspace, paths: Sequence[Path], progress: Progress, level: str
) -> list[Artifact]:
    """Test the files without a verdict: two side by side, or two machines of one.

    Raises `Failure` with a line for each file that failed.
    """
    verdicts = {path: verdict.read(workspace, path, level) for path in paths}
    # The longest first, so that no core is idle at the end.
    new = sorted(
        (path for path in paths if not verdicts[path]),
        key=lambda path: verdict.expected_seconds(workspace, path, level),
        reverse=True,
    )
    side_by_side = max(1, min(MACHINES, len(new)))

    def test(path: Path) -> dict[str, object] | Failure:
        name = path.name.removeprefix("hyrax-vm-")
        try:
            what = "boot test" if level == FULL else "smoke boot"
            with progress.stage(f"{what} of {name}") as on_line:
                return boot_test.test(workspace, path, on_line, MACHINES // side_by_side, level)
        except Failure as failure:
            return failure

    tried = run_parallel([partial(test, path) for path in new], side_by_side)
    results = dict(zip(new, tried, strict=True))
    failures = [f"{p.name}: {r}" for p, r in results.items() if isinstance(r, Failure)]
    passed = {p: v for p, v in (verdicts | results).items() if isinstance(v, dict)}
    package.record_tests(workspace.artifacts, {p.name: str(v["level"]) for p, v in passed.items()})
    if failures:
        raise Failure("\n".join(failures))
    return [Artifact(path, passed[path]) for path in paths]


def _artifacts(
    workspace: Workspace,
    plan: Plan,
    formats: Sequence[Format],
    progress: Progress,
    machines: threading.Semaphore,
) -> list[Path]:
    made = master(workspace, plan, progress, machines)
    image = made.server.image
    keys = plan.formats(image)
    release = package.read_release(made.disk.parent / "release.env")
    with progress.stage("package") as on_line:
        return package.build(
            workspace.artifacts,
            Source(plan.recipe, image, made.disk, plan.guest(image), release, plan.refresh),
            formats,
            keys=keys,
            packages=rootfs.packages(made.rootfs),
            added=workshop.packages_of(made.workshop) if made.workshop else {},
            timings=dict(progress.timings),
            largest=partial(sizes.largest, made.rootfs, made.server.squashfs),
            log=_log(workspace, plan, "package"),
            on_line=on_line,
        )


def master(
    workspace: Workspace,
    plan: Plan,
    progress: Progress,
    machines: threading.Semaphore | None = None,
) -> Master:
    """Run the stages of one image up to its master; take from the cache what is there.

    `machines` limits how many provisioning boots run side by side.  Raises `Failure`: a tool
    failed; `UserError`: too little disk space.
    """
    recipe, results = plan.recipe, workspace.cache
    if not (results.contains("rootfs", plan.rootfs) and results.contains("server", plan.server)):
        cache.check_space(results.folder, workspace.artifacts)

    def make_rootfs() -> Path:
        with progress.stage("rootfs") as on_line:
            log = _log(workspace, plan, "rootfs")
            return rootfs.build(results, recipe, plan.rootfs, log, on_line)

    def make_server() -> server.PackedServer:
        with progress.stage("server") as on_line:
            log = _log(workspace, plan, "server")
            # `on_line` shows a line of the pull now and then, `say` every line of the trim list.
            return server.build(results, recipe, plan.server, log, on_line, progress.say)

    def make_workshop() -> Path:
        with progress.stage("workshop") as on_line:
            log = _log(workspace, plan, "workshop")
            return workshop.build(results, recipe, plan.workshop, log, on_line)

    # Each uses one core most of the time.
    added = [make_workshop] if recipe.addition else []
    both = run_parallel([make_rootfs, make_server, *added], 2)
    tar, served, *more = cast(tuple[Path, server.PackedServer, Path], tuple(both))
    with progress.stage("disk") as on_line:
        log = _log(workspace, plan, "disk")
        parts = [served.squashfs, *more]
        made = disk.build(results, recipe, plan.disk, tar, parts, log, on_line)
    with machines or nullcontext(), progress.stage("provision") as on_line:
        log = _log(workspace, plan, "provision")
        key = plan.provision(served.image)
        provisioned = provision.build(results, recipe, key, made, served.image, log, on_line)
    with progress.stage("guest") as on_line:
        log = _log(workspace, plan, "guest")
        key = plan.guest(served.image)
        done = guest.build(results, recipe, key, provisioned, served.image, log, on_line)
    return Master(tar, served, next(iter(more), None), done)


def _label(recipe: Recipe, wanted: Sequence[tuple[Recipe, object]]) -> str:
    """Return a name for lines about an image; it names the base if there are images on several."""
    several = len({other.base_name for other, _ in wanted}) > 1
    return f"{recipe.name} on {recipe.base.title}" if several else recipe.name


def _log(workspace: Workspace, plan: Plan, stage: str) -> Path:
    """Return the path of a stage's log; remove the log of an earlier run."""
    recipe = plan.recipe
    system = f"{recipe.base.short}-{recipe.arch_name}"
    path = workspace.logs / f"{recipe.name}-{recipe.server_name}-{system}-{stage}.log"
    path.unlink(missing_ok=True)
    return path
