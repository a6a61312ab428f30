"""Stage `server`: a DAP server as an OCI image -> `server.squashfs` + `server.json`.

The embedded default is first packed into an OCI image of its own; from there on it takes the way
that every OCI image takes: flattened with umoci, packed as a squashfs.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from hyraxvm import cache, rootfs
from hyraxvm.command import as_root, output, run
from hyraxvm.config import Recipe
from hyraxvm.errors import Failure
from hyraxvm.paths import PROVISION

DEADLINE = 1200.0  # seconds
EMBEDDED_UID = 880  # neither a Debian package's (100-999 downwards) nor a person's
TAG = "server"


class ServerImage(BaseModel):
    """What the pipeline and the guest need to know of a server's OCI image."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    entrypoint: list[str]
    environment: dict[str, str]
    working_directory: str
    user: str
    uid: int
    gid: int
    image_digest: str
    packages: dict[str, str]


class Server(BaseModel):
    """The stage's output."""

    model_config = ConfigDict(frozen=True)

    squashfs: Path
    image: ServerImage


def key(recipe: Recipe, refresh: str = "") -> str:
    """The digest of the stage's inputs."""
    return cache.digest(
        recipe.server.model_dump(),
        recipe.base.suite,
        recipe.base.arch,
        refresh,
        folder(recipe),
        Path(__file__),
    )


def folder(recipe: Recipe) -> Path:
    """The server's own folder under `provision/`."""
    path = PROVISION / "servers" / recipe.server.folder
    if not path.is_dir():
        raise Failure(f"{path}: is missing; server {recipe.server_name!r} needs it")
    return path


def build(recipe: Recipe, log: Path, on_line: Callable[[str], None], refresh: str = "") -> Server:
    """Return the server's squashfs and description; raises `Failure` when a tool fails."""

    def make(work: Path) -> None:
        layout = work / "oci"
        pack_embedded(recipe, layout, work, log, on_line)
        tree = flatten(layout, work / "bundle", log)
        image = describe(recipe, layout, tree)
        squash(tree, work / "server.squashfs", log)
        (work / "server.json").write_text(image.model_dump_json(indent=1) + "\n")
        for rest in ("bundle", "site", "layer.tar", "oci"):
            path = work / rest
            path.unlink() if path.is_file() else cache.remove_tree(path)

    done = cache.produce("server", key(recipe, refresh), make)
    image = ServerImage.model_validate_json((done / "server.json").read_text())
    return Server(squashfs=done / "server.squashfs", image=image)


def pack_embedded(
    recipe: Recipe, layout: Path, work: Path, log: Path, on_line: Callable[[str], None]
) -> None:
    """Pack the server's folder, its Debian and its PyPI packages into an OCI image at `layout`."""
    source = folder(recipe)
    name = recipe.server_name
    site = work / "site"
    run(pip_command(source / "requirements.txt", site), log=log, deadline=DEADLINE, on_line=on_line)
    layer = work / "layer.tar"
    env = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    command = layer_command(recipe, site, source / name, layer)
    run(command, log=log, deadline=DEADLINE, env=env, on_line=on_line)

    image = f"{layout}:{TAG}"
    wanted = preview(recipe)
    config = [
        f"--config.user={wanted.user}",
        f"--config.workingdir={wanted.working_directory}",
        *(f"--config.entrypoint={word}" for word in wanted.entrypoint),
        *(f"--config.env={key}={value}" for key, value in wanted.environment.items()),
        f"--config.exposedports={recipe.server.port}/tcp",
        f"--config.label=org.opencontainers.image.title={name}",
        f"--config.label=org.opencontainers.image.version={wanted.version}",
    ]
    for command in (
        ["umoci", "init", "--layout", str(layout)],
        ["umoci", "new", "--image", image],
        ["umoci", "raw", "add-layer", "--image", image, str(layer)],
        ["umoci", "config", "--image", image, *config],
    ):
        run(command, log=log, deadline=DEADLINE)


def preview(recipe: Recipe) -> ServerImage:
    """What the embedded server's image is going to say of itself; nothing is built."""
    name = recipe.server_name
    init = folder(recipe) / name / "__init__.py"
    version = re.search(r'^__version__.* = "([0-9.]+)"$', init.read_text(), re.MULTILINE)
    if version is None:
        raise Failure(f'{init}: has no line `__version__ = "..."`')
    return ServerImage(
        name=name,
        version=version.group(1),
        entrypoint=["/usr/bin/python3", "-m", name],
        environment={
            f"{name.upper()}_ROOT": recipe.server.data_root,
            f"{name.upper()}_BIND": f"0.0.0.0:{recipe.server.port}",
            "HDF5_USE_FILE_LOCKING": "FALSE",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        },
        working_directory="/tmp",  # noqa: S108 - inside the image
        user=name,
        uid=EMBEDDED_UID,
        gid=EMBEDDED_UID,
        image_digest="",
        packages={},
    )


def pip_command(requirements: Path, target: Path) -> list[str]:
    """Install locked wheels into a folder, for the base's Python, whatever Python runs this."""
    return [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--quiet"),
        "--disable-pip-version-check",
        *("--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"),
        *("--python-version=3.11", "--implementation=cp"),
        *("--platform=manylinux_2_28_x86_64", "--platform=manylinux_2_27_x86_64"),
        "--platform=manylinux2014_x86_64",
        *("--target", str(target), "--requirement", str(requirements)),
    ]


def layer_command(recipe: Recipe, site: Path, package: Path, layer: Path) -> list[str]:
    """The mmdebstrap command that makes the image's one layer.

    `--variant=extract` unpacks packages without running their scripts: no dpkg, no shell and no
    package manager end up in the image.
    """
    modules = "/usr/local/lib/python3.11/dist-packages"
    user = recipe.server_name
    account = f"{user}:x:{EMBEDDED_UID}:{EMBEDDED_UID}::/tmp:/usr/sbin/nologin"
    data = recipe.server.data_root
    hooks = [
        f'mkdir -p "$1{modules}" "$1{data}" "$1/run" "$1/proc" "$1/sys"; chmod 1777 "$1/tmp"',
        f"sync-in {site} {modules}",
        f'cp -r {package} "$1{modules}/"',
        f"echo '{account}' > \"$1/etc/passwd\"",
        f"echo '{user}:x:{EMBEDDED_UID}:' > \"$1/etc/group\"",
        # What a server never reads: test suites, headers, typing stubs, pydap's own server.
        f'cd "$1{modules}"; rm -rf bin include share numpy/f2py numpy/distutils '
        "numpy/_core/include numpy/_core/lib numpy/random/lib pydap/wsgi pydap/server pydap/apis; "
        r"find . -depth -type d \( -name tests -o -name test -o -name __pycache__ -o "
        r"-name .mypy_cache \) -exec rm -rf {} +; find . -type f \( -name '*.pyi' "
        r"-o -name '*.pxd' -o -name '*.pyx' -o -name '*.a' -o -name '*.[ch]' \) -delete",
        # Compiled once here: the image is read-only, so the guest could not keep what it compiles.
        'chroot "$1" python3 -m compileall -q --invalidation-mode unchecked-hash '
        f"/usr/lib/python3.11 {modules} || test $? = 1",
        # A library that is missing is found here and not in the guest.
        f'chroot "$1" python3 -c "import {user}.app"',
        'chown -R 0:0 "$1/usr/local" "$1/etc"; rm -rf "$1/usr/share/doc" "$1/usr/share/man"',
    ]
    return [
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--variant=extract",
        f"--architectures={recipe.base.arch}",
        f"--include={','.join(recipe.server.packages)}",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        *rootfs.keep_packages(rootfs.package_cache(), "extract"),
        # The only hooks that this variant runs once the packages are there.
        *(f"--extract-hook={hook}" for hook in hooks),
        recipe.base.suite,
        str(layer),
    ]


def flatten(layout: Path, bundle: Path, log: Path) -> Path:
    """Unpack all layers of the image over each other; returns the tree."""
    command = ["umoci", "unpack", "--image", f"{layout}:{TAG}", str(bundle)]
    run(as_root(command), log=log, deadline=DEADLINE)
    return bundle / "rootfs"


def squash(tree: Path, squashfs: Path, log: Path) -> None:
    """Pack a tree as a zstd squashfs; owners, modes and extended attributes are kept."""
    run(
        as_root(
            [
                *("mksquashfs", str(tree), str(squashfs), "-comp", "zstd"),
                *("-Xcompression-level", "15", "-noappend", "-no-progress"),
            ]
        ),
        log=log,
        deadline=DEADLINE,
        env={**os.environ, "SOURCE_DATE_EPOCH": "0"},
    )


def describe(recipe: Recipe, layout: Path, tree: Path) -> ServerImage:
    """Read the image's configuration (OCI Image Specification 1.1, "OCI Image Configuration")."""
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"]
    config = _blob(layout, _blob(layout, digest)["config"]["digest"])["config"]
    labels = config.get("Labels") or {}
    user = config.get("User") or "root"
    uid, gid = _ids(tree, user)
    return ServerImage(
        name=recipe.server_name,
        version=labels["org.opencontainers.image.version"],
        entrypoint=[*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])],
        environment=dict(item.split("=", 1) for item in config.get("Env") or []),
        working_directory=config.get("WorkingDir") or "/",
        user=user,
        uid=uid,
        gid=gid,
        image_digest=digest,
        packages=_python_packages(tree),
    )


def _blob(layout: Path, digest: str) -> dict[str, Any]:
    algorithm, name = digest.split(":")
    blob: dict[str, Any] = json.loads((layout / "blobs" / algorithm / name).read_text())
    return blob


def _ids(tree: Path, user: str) -> tuple[int, int]:
    passwd = output(as_root(["cat", str(tree / "etc/passwd")]))
    for line in passwd.splitlines():
        fields = line.split(":")
        if user in (fields[0], fields[2]):
            return int(fields[2]), int(fields[3])
    raise Failure(f"the server's image runs as {user!r}, which its /etc/passwd does not list")


def _python_packages(tree: Path) -> dict[str, str]:
    """Name and version of every distribution in the image (PEP 376 metadata directories)."""
    found = output(as_root(["find", str(tree), "-name", "*.dist-info", "-printf", "%f\n"]))
    pairs = (line.removesuffix(".dist-info").rsplit("-", 1) for line in found.splitlines())
    return dict(sorted((pair[0], pair[1]) for pair in pairs))
