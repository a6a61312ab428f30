"""The stages in their order, for one image."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hyraxvm import boottest, cache, command, disk, package, provision, rootfs, server
from hyraxvm.config import Recipe
from hyraxvm.paths import ARTIFACTS, LOGS, cache_root
from hyraxvm.progress import Progress


@dataclass(frozen=True)
class Artifact:
    """What `build` made: the file, and the boot test's verdict if it was asked for."""

    path: Path
    verdict: dict[str, object] | None


def build(recipe: Recipe, progress: Progress, *, test: bool = True, refresh: str = "") -> Artifact:
    """Run the stages whose inputs have changed; returns the artifact.

    Raises `UserError`: too little disk space, or another build runs in this checkout; `Failure`:
    a tool or a test failed.
    """
    ARTIFACTS.mkdir(exist_ok=True)
    busy = "another build runs in this checkout; wait for it, or end it, and try again"
    with cache.lock(ARTIFACTS / ".lock", busy):
        path = _artifact(recipe, progress, refresh)
        if not test:
            return Artifact(path, None)
        if verdict := boottest.verdict(path):
            return Artifact(path, verdict)
        with progress.stage("boot test", loud=True) as on_line:
            return Artifact(path, boottest.test(path, on_line))


def _artifact(recipe: Recipe, progress: Progress, refresh: str) -> Path:
    def log(stage: str) -> Path:
        path = LOGS / f"{recipe.name}-{recipe.server_name}-{stage}.log"
        path.unlink(missing_ok=True)
        return path

    root_key = rootfs.key(recipe, refresh)
    server_key = server.key(recipe, refresh)
    disk_key = disk.key(recipe, root_key, server_key)
    if not (cache.contains("rootfs", root_key) and cache.contains("server", server_key)):
        cache.check_space(cache_root(), ARTIFACTS)

    # Both use one core most of the time.
    with ThreadPoolExecutor(max_workers=2) as pool:

        def make_rootfs() -> Path:
            with progress.stage("rootfs") as on_line:
                return rootfs.build(recipe, log("rootfs"), on_line, refresh)

        def make_server() -> server.Server:
            with progress.stage("server") as on_line:
                return server.build(recipe, log("server"), on_line, refresh)

        futures = pool.submit(make_rootfs), pool.submit(make_server)
        try:
            tar, served = futures[0].result(), futures[1].result()
        except BaseException:
            command.stop_all()  # one has failed or Ctrl-C came: the other need not finish
            raise

    provision_key = provision.key(recipe, disk_key, served.image)
    package_key = package.key(recipe, provision_key)
    with progress.stage("disk") as on_line:
        made = disk.build(recipe, disk_key, tar, served, log("disk"), on_line)
    with progress.stage("provision", loud=True) as on_line:
        master = provision.build(
            recipe, provision_key, made, served.image, log("provision"), on_line
        )
    with progress.stage("package") as on_line:
        return package.build(
            recipe,
            package_key,
            master,
            served.image,
            rootfs.packages(tar),
            dict(progress.timings),
            log("package"),
            on_line,
        )
