"""Packages for learners' own computers: wheels for pip (PEP 503), and sources for R.

Each index is a folder of files: nginx shows it, and a USB stick can have it.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from hyraxvm.config.images import Clients
from hyraxvm.core import cache
from hyraxvm.stages.workshop import r_index

PAGE: Final = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1>
{links}
</body></html>
"""


def commands(clients: Clients, requirements: Path, target: Path) -> Iterator[list[str]]:
    """Yield a pip command for each system; together they download the locked wheels."""
    for tags in clients.platforms.values():
        yield [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp"),
            f"--python-version={clients.python}",
            *(f"--platform={tag}" for tag in tags),
            *("--dest", str(target), "--requirement", str(requirements)),
        ]


def index(wheels: Path, target: Path) -> None:
    """Move the wheels of a folder into `target`, and write the pages of the index beside them."""
    target.mkdir(parents=True, exist_ok=True)
    names = set()
    for wheel in sorted(wheels.glob("*.whl")):
        name = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        names.add(name)
        (target / name).mkdir(exist_ok=True)
        wheel.rename(target / name / wheel.name)
    for name in names:
        files = [
            (f"{wheel.name}#sha256={cache.file_digest(wheel)}", wheel.name)
            for wheel in sorted((target / name).glob("*.whl"))
        ]
        _page(target / name, f"Links for {name}", files)
    _page(target, "Packages", [(f"{name}/", name) for name in sorted(names)])


def index_r(tarballs: Iterable[Path], target: Path) -> dict[str, str]:
    """Write a repository for R with a page for people; return package -> version.

    Raises `Failure`: see `r_index.make`.
    """
    versions = r_index.make(tarballs, target)
    files = [f"{name}_{version}.tar.gz" for name, version in versions.items()]
    _page(target, "R packages", [(f"{r_index.CONTRIB}/{file}", file) for file in files])
    return versions


def _page(folder: Path, title: str, links: list[tuple[str, str]]) -> None:
    lines = [f'<a href="{html.escape(to)}">{html.escape(text)}</a><br>' for to, text in links]
    (folder / "index.html").write_text(PAGE.format(title=title, links="\n".join(lines)))
