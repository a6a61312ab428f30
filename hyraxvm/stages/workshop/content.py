"""What learners and teachers see: data, notebooks, pages, slides, from `provision/workshop`.

The exercises' sources are Markdown (jupytext's), one file for each.  Of each source come

- a notebook for learners, in which they replace `...` by their answers;
- the same notebook with the answers, for teachers and for the tests;
- a page for browsers, on which solutions and notes for the teacher are folded up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hyraxvm.stages.workshop import exercises, slides
from hyraxvm.stages.workshop.data import make_data

SETTINGS: Final = "jupyter_server_config.py"
SOURCES: Final = (SETTINGS, "exercises", "slides", "pages")


def make(source: Path, target: Path) -> None:
    """Write all content into `target`; `source` is the folder with what it is made from.

    Raises `Failure`: a source has a fault.
    """
    make_data(target / "data")
    exercises.make(source, target / "www")
    slides.make(source / "slides", target / "www" / "slides")
