"""Sources of R packages, from a Debian archive whose signatures apt checks.

CRAN's tarball of an R package is the "orig" file of Debian's source package.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hyraxvm.config.images import Recipe, SourcesForR
from hyraxvm.core import cache
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure
from hyraxvm.core.process import run
from hyraxvm.stages.rootfs import stage as rootfs

DEADLINE: Final = 600.0  # seconds
FOLDER: Final = "/sources"  # in mmdebstrap's temporary root


def fetch(
    results: StageCache, recipe: Recipe, log: Path, on_line: Callable[[str], None]
) -> list[Path]:
    """Return the tarballs that the image's addition names, in the order of their names there.

    They are a result of their own: an edit of an exercise does not fetch them again.

    Raises `Failure`: mmdebstrap failed, or the archive has another file than `images.toml` names;
    `UserError`: see `rootfs.source_options`.
    """
    assert recipe.addition is not None
    wanted = recipe.addition.clients.r

    def make(work: Path) -> None:
        on_line("fetching sources of R packages")
        run(command(recipe, work), log=log, deadline=DEADLINE, on_line=on_line)
        _choose(work, wanted)

    # The digests say what the result is: neither the archive's address nor the code matters.
    folder = results.produce("r-sources", cache.digest(wanted.packages), make)
    return [folder / name for name in sorted(wanted.packages)]


def command(recipe: Recipe, target: Path) -> list[str]:
    """Return the mmdebstrap command that writes the sources' tarballs into `target`.

    It unpacks nothing: apt in its empty root reads the archive's lists, then fetches the files.
    """
    assert recipe.addition is not None
    assert recipe.r_base is not None
    there = recipe.model_copy(update={"base": recipe.r_base})
    names = shlex.join(sorted(recipe.addition.clients.r.packages))
    fetching = (
        f'mkdir "$1{FOLDER}"; cd "$1{FOLDER}"; APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq '
        # apt's own user cannot write into the root.
        f"-o APT::Sandbox::User=root source --only-source --tar-only {names}"
    )
    return [
        "mmdebstrap",
        rootfs.mode(),
        *("--variant=extract", "--format=null"),
        *rootfs.source_options(there),
        # Lists of sources in the place of those of packages.
        """--setup-hook=sed -i 's/^deb /deb-src /' "$1/etc/apt/sources.list\"""",
        f"--extract-hook={fetching}",
        f"--extract-hook=sync-out {FOLDER} {shlex.quote(str(target))}",
        *rootfs.source_arguments(there, Path("/dev/null")),
    ]


def _choose(folder: Path, wanted: SourcesForR) -> None:
    """Give the files with the wanted digests the names of their source packages."""
    found = {cache.file_digest(path): path for path in sorted(folder.iterdir())}
    for name, digest in wanted.packages.items():
        if digest not in found:
            there = [
                f"{path.name}: {has}"
                for has, path in found.items()
                if path.name.startswith(f"{name}_")
            ]
            raise Failure(
                f"{name}: the archive of {wanted.base} has {', '.join(there) or 'no such file'}; "
                f"expected: the SHA-256 in images.toml, addition.*.clients.r.packages: {digest}"
            )
        found[digest].rename(folder / name)
