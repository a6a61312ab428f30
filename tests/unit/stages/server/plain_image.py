"""A small image with one program, and a server for the table that uses it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from hyraxvm.config import images
from hyraxvm.core.cache import StageCache
from hyraxvm.stages.server import oci
from hyraxvm.stages.server import stage as server
from tests.unit.stages.server.image_maker import Entry, folder, program

PASSWD = b"root:x:0:0::/root:/bin/sh\nserve:x:1234:1235::/:/sbin/nologin\n"
GROUP = b"root:x:0:\nserve:x:1235:\n"
LAYERS = [
    [folder("etc/"), Entry("etc/passwd", PASSWD), Entry("etc/group", GROUP),
     folder("opt/"), program("opt/serve"), Entry("opt/manual", b"m" * 5000)],
    [Entry("opt/.wh.manual"), Entry("etc/motd", b"hello"), folder("var/lib/state/")],
]  # fmt: skip
CONFIG = (
    "--config.user=serve",
    "--config.workingdir=/opt",
    "--config.entrypoint=/opt/serve",
    "--config.cmd=--port",
    "--config.cmd=9000",
    "--config.env=GREETING=it's $HOME 100%",
    "--config.exposedports=9000/tcp",
    "--config.volume=/var/lib/state",
    "--config.label=org.opencontainers.image.version=2.5",
)


def recipe(reference: str, digest: str, **more: Any) -> images.Recipe:
    table = images.load()
    base = images.recipe(table, "nfs", "dapdir", reference, digest)
    fields = {
        "title": "a plain server",
        "source": "docker://made/plain:1",
        "data_root": "/srv/data",
        "port": 9000,
        "health_path": "/opendap/",
        **more,
    }
    return base.model_copy(
        update={"server_name": "plain", "server": images.Server.model_validate(fields)}
    )


def built(reference: str, tmp_path: Path, **more: Any) -> server.PackedServer:
    chosen = recipe(reference, oci.local_digest(reference), **more)
    results = StageCache(tmp_path / "cache")
    key = server.key(chosen)
    return server.build(results, chosen, key, tmp_path / "log", lambda line: None)


def listed(squashfs: Path) -> set[str]:
    done = subprocess.run(
        ["unsquashfs", "-l", squashfs], capture_output=True, text=True, check=True
    )
    return {line.removeprefix("squashfs-root/") for line in done.stdout.splitlines()[1:]}


def hyrax_from(reference: str) -> images.Config:
    """Return the table with Hyrax from another place."""
    table = images.load()
    hyrax = table.server["hyrax"].model_copy(update={"source": reference})
    return table.model_copy(update={"server": {**table.server, "hyrax": hyrax}})
