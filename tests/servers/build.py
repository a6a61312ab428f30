"""The stages up to the master disk, for a server that is not in `images.toml`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hyraxvm.config import images
from hyraxvm.core.progress import Progress
from hyraxvm.core.workspace import Workspace
from hyraxvm.stages import pipeline
from hyraxvm.stages.plan import Plan
from hyraxvm.stages.server import oci
from hyraxvm.stages.server import stage as server


@dataclass(frozen=True)
class Built:
    """A provisioned disk, and what it was made from."""

    recipe: images.Recipe
    image: server.ServerImage
    squashfs: Path
    master: Path


def recipe(name: str, reference: str, **fields: object) -> images.Recipe:
    """Return a recipe with a server of these fields, from a local image."""
    table = images.load()
    known = images.recipe(table, "nfs", "dapdir", reference, oci.local_digest(reference))
    served = images.Server.model_validate({"source": f"docker://made/{name}:0", **fields})
    memory = max(known.machine.memory_mib, served.memory_mib)
    machine = known.machine.model_copy(update={"memory_mib": memory})
    return known.model_copy(
        update={
            "server_name": name,
            "server": served,
            "machine": machine,
            "budget": table.budget["hyrax"],
        }
    )


STANDIN: dict[str, object] = {
    "title": "stand-in (not Hyrax)",
    "folder": "hyrax",
    "data_root": "/usr/share/hyrax",
    "health_path": "/opendap/sample/sst.nc.dds",
    "memory_mib": 2048,
    "trim": ["/usr/share/doc", "/usr/share/man", "/usr/share/locale/*", "/var/cache/*",
             "/usr/lib/jvm/*/legal", "/usr/share/lintian", "/usr/share/java/tomcat10*"],
}  # fmt: skip
FILES: dict[str, object] = {
    "title": "plain file server (not Hyrax)",
    "data_root": "/content/opendap",
    "port": 9000,
    "health_path": "/opendap/sample/sst.nc",
}


def build(chosen: images.Recipe, artifacts: Path, say: Callable[[str], None]) -> Built:
    """Run the stages; those whose result is cached are skipped."""
    workspace = replace(Workspace.here(), artifacts=artifacts)
    made = pipeline.master(workspace, Plan(chosen), Progress(say))
    return Built(chosen, made.server.image, made.server.squashfs, made.disk)
