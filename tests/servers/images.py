"""OCI images for the tests of whole servers: stand-ins, made from Debian packages with umoci.

`make_standin` makes an image with the layout of `opendap/hyrax`.  `make_files` makes a plain file
server with another port and another data root.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from hyraxvm.core import cache
from hyraxvm.core.workspace import Workspace
from hyraxvm.stages.rootfs import stage as rootfs
from tests.servers import standin_image
from tests.servers.layout import layout
from tests.unit.stages.server.image_maker import TAG

HERE = Path(__file__).parent
FILES_HOOKS = [
    "printf '%s\\n' 'root:x:0:0::/:/bin/sh' 'web:x:1000:1000::/:/bin/false' >\"$1/etc/passwd\"",
    "printf 'web:x:1000:\\n' >\"$1/etc/group\"",
    'mkdir -p "$1/content/opendap" "$1/state"; rm -rf "$1/usr/share/doc"',
]


def make_standin(variant: str = "el9") -> str:
    """Build the stand-in in the layout of `variant`; return its reference."""
    chosen = layout(variant)
    labels, ports = chosen.table["labels"], chosen.table["ports"]
    entrypoint, command = chosen.table["command"]
    return _make(
        standin_image.packages(chosen),
        standin_image.hooks(chosen),
        f"--config.user={chosen.table['user']}",
        f"--config.entrypoint={entrypoint}",
        f"--config.cmd={command}",
        *(f"--config.env={name}={value}" for name, value in chosen.environment.items()),
        *(f"--config.label={name}={value}" for name, value in labels.items()),
        *(f"--config.exposedports={port}/tcp" for port in ports),
    )


def make_files() -> str:
    """Build the plain file server; return its reference."""
    return _make(
        "python3-minimal,libpython3-stdlib",
        FILES_HOOKS,
        "--config.entrypoint=python3",
        "--config.cmd=-m",
        "--config.cmd=http.server",
        "--config.cmd=9000",
        "--config.env=PATH=/usr/bin:/bin",
        "--config.user=web",
        "--config.workingdir=/content",
        "--config.volume=/state",
        "--config.label=org.opencontainers.image.version=3.11",
        "--config.exposedports=9000/tcp",
    )


def _make(packages: str, hooks: list[str], *config: str) -> str:
    """Pack an image, once; return its reference.

    The same image gives later stages the same keys, so that they are skipped.
    """
    results = Workspace.here().cache

    def pack(work: Path) -> None:
        layer, image = work / "layer.tar", f"{work / 'layout'}:{TAG}"
        mode = "root" if os.geteuid() == 0 else "unshare"
        with rootfs.package_cache(results) as debs:
            subprocess.run(
                [
                    *("mmdebstrap", "--quiet", f"--mode={mode}", "--variant=extract"),
                    *(f"--include={packages}", "--skip=cleanup/run"),
                    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
                    *rootfs.keep_packages(debs, "extract"),
                    *(f"--extract-hook={hook}" for hook in hooks),
                    *("bookworm", str(layer)),
                ],
                check=True,
            )
        for command in (
            ["umoci", "init", "--layout", str(work / "layout")],
            ["umoci", "new", "--image", image],
            ["umoci", "raw", "add-layer", "--image", image, str(layer)],
            ["umoci", "config", "--image", image, *config],
        ):
            subprocess.run(command, check=True, capture_output=True)
        layer.unlink()

    key = cache.digest(packages, hooks, list(config), HERE / "standin", Path(__file__))
    return f"oci:{results.produce('test-images', key, pack) / 'layout'}:{TAG}"
