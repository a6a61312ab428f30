"""Stage `workshop`: wheels, packages, sources for R, data, exercises -> `workshop.squashfs`.

It is a root file system of its own: JupyterLab runs in it, and sees nothing of the guest.

| folder in it | what is there |
|---|---|
| /srv/workshop/data | the data, served at /opendap/workshop/ |
| /srv/workshop/www | pages, slides, notebooks, packages for learners, shown at /workshop/ |
| /usr/local | JupyterLab |
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hyraxvm.config.images import Addition, Recipe, Server
from hyraxvm.core import cache, code
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure
from hyraxvm.core.paths import ROOT
from hyraxvm.core.process import run
from hyraxvm.stages.rootfs import stage as rootfs
from hyraxvm.stages.server import embedded, inventory, oci
from hyraxvm.stages.server.image_tree import merge
from hyraxvm.stages.server.trim import trim
from hyraxvm.stages.workshop import content, packages, r_fetch

DEADLINE: Final = 1200.0  # seconds
PACKAGE: Final = "workshop"  # the Python package in the folder, which notebooks import
# Locked wheels: JupyterLab with what notebooks use, and what learners' own computers need.
WHEELS, CLIENTS = "requirements.txt", "clients.txt"
PACKAGES: Final = "packages.json"  # beside the squashfs
STATE: Final = "/var/lib/hyrax-workshop"  # what learners write, in the guest and here
HOME: Final = "srv/workshop"  # in the squashfs


def key(recipe: Recipe, refresh: str = "", root: Path = ROOT) -> str:
    """Return the digest of the stage's inputs, without the addition's files for the guest.

    `refresh` is the day for which packages are fetched again, or empty.
    """
    return cache.digest(
        _addition(recipe).model_dump(include={"packages", "trim", "clients"}),
        recipe.arch_name,
        recipe.base.model_dump(include={*rootfs.SOURCE, "python"}),
        refresh,
        *(folder(recipe, root) / name for name in (WHEELS, CLIENTS, PACKAGE, *content.SOURCES)),
        code.digest(root, __name__),
    )


def folder(recipe: Recipe, root: Path = ROOT) -> Path:
    """Return the folder with the sources of the image's addition."""
    return root / "provision" / (recipe.image.addition or "none")


def build(
    results: StageCache,
    recipe: Recipe,
    stage_key: str,
    log: Path,
    on_line: Callable[[str], None],
) -> Path:
    """Return the path of the squashfs.

    Raises `Failure`: a tool failed, a library is missing, or the squashfs exceeds its budget.
    """

    def make(work: Path) -> None:
        python = _python(results, recipe, work, log, on_line)
        layer, r_packages = _content(results, recipe, work, log, on_line)
        tree = merge([python, layer])
        listed = inventory.packages(tree, work / "databases")  # which the trim list removes
        listed |= {f"cran/{name}": version for name, version in r_packages.items()}
        trim(tree, _addition(recipe).trim, on_line)
        # The guest mounts over these.
        for path in ("/proc", "/sys", "/dev", "/run", STATE):
            tree.make_dir(path, 0, 0)
        for path in ("/tmp", "/var/tmp"):  # noqa: S108 - inside the squashfs
            tree.make_dir(path, 0, 0, 0o1777)
        tree.write("/etc/hosts", b"127.0.0.1 localhost\n")
        on_line(f"packing {tree.size() / 1e6:.0f} MB")
        oci.squash(tree, work / "workshop.squashfs", log)
        (work / PACKAGES).write_text(json.dumps(listed, indent=1, sort_keys=True) + "\n")
        for rest in list(work.iterdir()):
            if rest.name not in ("workshop.squashfs", PACKAGES):
                cache.remove_tree(rest) if rest.is_dir() else rest.unlink()

    squashfs = results.produce("workshop", stage_key, make) / "workshop.squashfs"
    size, allowed = squashfs.stat().st_size, _addition(recipe).budget
    if size > allowed * 10**6:
        raise Failure(
            f"workshop: {size / 1e6:.1f} MB packed; must be at most {allowed} MB "
            f"(addition.{recipe.image.addition}.budget in images.toml)"
        )
    return squashfs


def packages_of(squashfs: Path) -> dict[str, str]:
    """Return package -> version of what the squashfs has, as `inventory` names them.

    An R package whose source it has is `cran/NAME`.
    """
    found: dict[str, str] = json.loads((squashfs.parent / PACKAGES).read_text())
    return found


def _addition(recipe: Recipe) -> Addition:
    assert recipe.addition is not None
    return recipe.addition


def _python(
    results: StageCache, recipe: Recipe, work: Path, log: Path, on_line: Callable[[str], None]
) -> Path:
    """Pack Python, the wheels and Debian's packages as the embedded server is packed."""
    source, site, layer = folder(recipe), work / "site", work / "layer.tar"
    command = embedded.pip_command(recipe, source / WHEELS, site)
    run(command, log=log, deadline=DEADLINE, on_line=on_line)
    # They would be in Python's folder of modules, where JupyterLab does not look for them.
    for name in ("share", "etc"):
        target = work / "content/usr/local" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (site / name).rename(target)
    env = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    with rootfs.package_cache(results) as debs:
        command = embedded.layer_command(_as_server(recipe), site, source / PACKAGE, debs, layer)
        deadline = rootfs.patience(recipe.arch, DEADLINE)
        run(command, log=log, deadline=deadline, env=env, on_line=on_line)
    return layer


def _as_server(recipe: Recipe) -> Recipe:
    """Return the recipe with the workshop in the place of its server."""
    server = Server(
        title=_addition(recipe).title,
        source="embedded",
        packages=_addition(recipe).packages,
        data_root=f"/{HOME}",
        health_path="/workshop/",
    )
    return recipe.model_copy(update={"server_name": PACKAGE, "server": server})


def _content(
    results: StageCache, recipe: Recipe, work: Path, log: Path, on_line: Callable[[str], None]
) -> tuple[Path, dict[str, str]]:
    """Pack data, pages and packages for clients; return the tar, and R package -> version.

    The same content gives the same bytes.
    """
    tree, layer, wheels = work / "content", work / "content.tar", work / "wheels"
    on_line("making data and pages")
    content.make(folder(recipe), tree / HOME)
    locked = folder(recipe) / CLIENTS
    for command in packages.commands(_addition(recipe).clients, locked, wheels):
        run(command, log=log, deadline=DEADLINE, on_line=on_line)
    packages.index(wheels, tree / HOME / "www" / "packages")
    tarballs = r_fetch.fetch(results, recipe, log, on_line)
    r_packages = packages.index_r(tarballs, tree / HOME / "www" / "r")
    settings = folder(recipe) / content.SETTINGS
    (tree / "usr/local/etc/jupyter" / settings.name).write_bytes(settings.read_bytes())
    owner = ["--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--mode=u+rwX,go=rX"]
    command = ["tar", "--create", "--sort=name", *owner, "--file", str(layer)]
    run([*command, "--directory", str(tree), "srv", "usr"], log=log, deadline=DEADLINE)
    return layer, r_packages
