"""Slides: each deck is one Markdown file, of which Sphinx and reveal.js make one page.

All that the pages need is beside them.  To print a deck, or to save it as PDF, open it with
`?print-pdf` at the end of its address.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from hyraxvm.core.process import output

DEADLINE: Final = 300.0  # seconds
SETTINGS: Final = """\
extensions = ["myst_parser", "sphinx_revealjs"]
root_doc = "1-dap"
suppress_warnings = ["toc.not_included"]  # no deck is a chapter of another one
html_copy_source = False
revealjs_html_theme = "revealjs-simple"
revealjs_style_theme = "white"
revealjs_script_conf = {"hash": True, "transition": "none", "slideNumber": True}
"""
# What no page reads.
UNREAD: Final = (".buildinfo", "objects.inv", "*.map", "*.scss", "*.esm.js", "*.eot", "plugin")


def make(source: Path, target: Path) -> None:
    """Write a page for each deck of `source`, and all that the pages need, into `target`.

    Raises `Failure`: Sphinx finds a fault in a deck.
    """
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-slides-") as folder:
        work = Path(folder) / "slides"
        shutil.copytree(source, work)
        (work / "conf.py").write_text(SETTINGS)
        sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "revealjs"]
        output([*sphinx, "-d", f"{folder}/state", str(work), str(target)], deadline=DEADLINE)
    for name in UNREAD:
        for path in list(target.rglob(name)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
