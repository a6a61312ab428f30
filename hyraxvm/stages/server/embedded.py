"""The embedded default server, packed from Debian and PyPI packages into an OCI image."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from hyraxvm.config.images import SERVER_PORT, Recipe
from hyraxvm.core.errors import Failure
from hyraxvm.core.process import run
from hyraxvm.stages.rootfs import stage as rootfs
from hyraxvm.stages.server import oci

DEADLINE = 1200.0  # seconds
UID = 880  # Debian's packages take 999 downwards, people take 1000 upwards
TEMPORARY = "/tmp"  # noqa: S108 - inside the image


def pack(
    recipe: Recipe,
    source: Path,
    debs: Path,
    work: Path,
    log: Path,
    on_line: Callable[[str], None],
) -> Path:
    """Pack the server's Python package, and its packages from Debian and PyPI; return the layout.

    `source` is the server's folder, `debs` the folder of downloaded Debian packages.

    Raises `Failure`: a tool failed; `UserError`: see `rootfs.source_options`.
    """
    site, layer, layout = work / "site", work / "layer.tar", work / "oci"
    requirements, package = sources(recipe, source)
    run(pip_command(recipe, requirements, site), log=log, deadline=DEADLINE, on_line=on_line)
    env = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    command = layer_command(recipe, site, package, debs, layer)
    deadline = rootfs.patience(recipe.arch, DEADLINE)
    run(command, log=log, deadline=deadline, env=env, on_line=on_line)
    write_image(recipe, source, layer, layout, log)
    return layout


def write_image(recipe: Recipe, source: Path, layer: Path, layout: Path, log: Path) -> None:
    """Write an OCI layout of one layer, a tar, with the server's configuration.

    Raises `Failure`: umoci failed, or the Python package in `source` has no version.
    """
    image = f"{layout}:{oci.TAG}"
    wanted = configuration(recipe, source)
    config = [
        # Otherwise umoci writes this computer's.
        f"--architecture={recipe.arch.oci}",
        f"--config.user={wanted.user}",
        f"--config.workingdir={wanted.working_directory}",
        *(f"--config.entrypoint={word}" for word in wanted.entrypoint),
        *(f"--config.env={key}={value}" for key, value in wanted.environment.items()),
        *(f"--config.exposedports={port}/tcp" for port in wanted.ports),
        *(f"--config.label={key}={value}" for key, value in wanted.labels.items()),
    ]
    for command in (
        ["umoci", "init", "--layout", str(layout)],
        ["umoci", "new", "--image", image],
        ["umoci", "raw", "add-layer", "--image", image, str(layer)],
        ["umoci", "config", "--image", image, *config],
    ):
        run(command, log=log, deadline=DEADLINE)


def sources(recipe: Recipe, folder: Path) -> tuple[Path, Path]:
    """Return what is packed from the server's folder: its requirements, and its Python package."""
    return folder / "requirements.txt", folder / recipe.server_name


def configuration(recipe: Recipe, source: Path) -> oci.OciImage:
    """Return the image's configuration, without building anything.

    Raises `Failure`: the Python package has no version.
    """
    name = recipe.server_name
    init = source / name / "__init__.py"
    version = re.search(r'^__version__.* = "([0-9.]+)"$', init.read_text(), re.MULTILINE)
    if version is None:
        raise Failure(f'{init}: has no line `__version__ = "..."`')
    return oci.OciImage(
        digest="",
        entrypoint=["/usr/bin/python3", "-m", name],
        environment={
            f"{name.upper()}_ROOT": recipe.server.data_root,
            f"{name.upper()}_BIND": f"127.0.0.1:{SERVER_PORT}",
            "HDF5_USE_FILE_LOCKING": "FALSE",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        },
        working_directory=TEMPORARY,
        user=name,
        ports=[SERVER_PORT],
        volumes=[],
        labels={
            "org.opencontainers.image.title": name,
            "org.opencontainers.image.version": version.group(1),
        },
        layers=[],
        diff_ids=[],
    )


def pip_command(recipe: Recipe, requirements: Path, target: Path) -> list[str]:
    """Return the pip command that installs the locked wheels into `target` for the base's Python.

    The Python that runs this may be another one.
    """
    return [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--quiet"),
        "--disable-pip-version-check",
        *("--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"),
        *(f"--python-version={recipe.base.python}", "--implementation=cp"),
        *(f"--platform={tag}" for tag in recipe.arch.wheels),
        *("--target", str(target), "--requirement", str(requirements)),
    ]


def layer_command(recipe: Recipe, site: Path, package: Path, debs: Path, layer: Path) -> list[str]:
    """Return the mmdebstrap command that makes the image's one layer.

    `--variant=extract` unpacks packages without running their scripts, so the image needs no
    shell.  Python's package depends on dpkg, which the server's trim list removes.
    """
    python = f"python{recipe.base.python}"
    modules = f"/usr/local/lib/{python}/dist-packages"
    user = recipe.server_name
    account = f"{user}:x:{UID}:{UID}::/tmp:/usr/sbin/nologin"
    data = recipe.server.data_root
    packages = " ".join(recipe.server.packages)
    hooks = [
        # They are in base-files, which is not here; not every mmdebstrap makes them.
        'cd "$1"; for d in bin lib lib64 sbin; do '
        'if [ -e "usr/$d" ] && [ ! -e "$d" ]; then ln -s "usr/$d" "$d"; fi; done',
        # Nothing is installed, so dpkg has no record; apt says what it would install.
        'mkdir -p "$1/var/lib/dpkg"; APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" '
        f"apt-get --simulate -qq install {packages} | sed -n 's/^Inst \\([^ ]*\\) (\\([^ ]*\\) .*"
        "/Package: \\1\\nStatus: install ok installed\\nVersion: \\2\\n/p' "
        '>"$1/var/lib/dpkg/status"',
        f'mkdir -p "$1{modules}" "$1{data}" "$1/run" "$1/proc" "$1/sys"; chmod 1777 "$1/tmp"',
        f"sync-in {shlex.quote(str(site))} {modules}",
        f'cp -r {shlex.quote(str(package))} "$1{modules}/"',
        f"echo '{account}' > \"$1/etc/passwd\"",
        f"echo '{user}:x:{UID}:' > \"$1/etc/group\"",
        # Remove what the server never reads: test suites, headers, type stubs.
        f'cd "$1{modules}"; rm -rf bin include share numpy/f2py numpy/distutils '
        "numpy/_core/include numpy/_core/lib numpy/random/lib; "
        r"find . -depth -type d \( -name tests -o -name test -o -name __pycache__ -o "
        r"-name .mypy_cache \) -exec rm -rf {} +; find . -type f \( -name '*.pyi' "
        r"-o -name '*.pxd' -o -name '*.pyx' -o -name '*.a' -o -name '*.[ch]' \) -delete",
        # Compiled once here: the image is read-only, so the guest could not keep what it compiles.
        'chroot "$1" python3 -m compileall -q --invalidation-mode unchecked-hash '
        f"/usr/lib/{python} {modules} || test $? = 1",
        # A missing library ends the build here, and not the server in the guest.
        f'chroot "$1" python3 -c "import {user}.app"',
        'chown -R 0:0 "$1/usr/local" "$1/etc"; rm -rf "$1/usr/share/doc" "$1/usr/share/man"',
    ]
    return [
        "mmdebstrap",
        rootfs.mode(),
        "--variant=extract",
        *rootfs.source_options(recipe),
        f"--include={','.join(recipe.server.packages)}",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        *rootfs.keep_packages(debs, "extract"),
        # This variant runs no later hooks.
        *(f"--extract-hook={hook}" for hook in hooks),
        *rootfs.source_arguments(recipe, layer),
    ]
