"""Exercises: of one Markdown source each, a page and two notebooks; and the other pages.

A source begins with `title`, `minutes`, `question` and `objectives` in YAML.  Its Python cells are
tagged: `setup` for what learners run as it is, `solution` for what they find out themselves.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import jupytext
import nbformat
import yaml
from markdown_it import MarkdownIt
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from hyraxvm.core.errors import Failure
from hyraxvm.core.templates import render

TEMPLATE: Final = "page.html.j2"
NOTES: Final = "## Notes for the teacher"
SECTIONS: Final = ("## Steps", "## Check", NOTES)
KERNEL: Final = {"name": "python3", "display_name": "Python 3", "language": "python"}


class Exercise(NamedTuple):
    """A source: what its head says, and its cells, from the first text to the notes."""

    name: str
    title: str
    minutes: int
    question: str
    objectives: list[str]
    cells: list[NotebookNode]


def make(source: Path, www: Path) -> None:
    """Write pages into `www`, notebooks into `www/notebooks`, with answers into `www/answers`.

    Raises `Failure`: a source lacks a part.
    """
    exercises = [read(path) for path in sorted((source / "exercises").glob("*.md"))]
    for folder in ("notebooks", "answers"):
        (www / folder).mkdir(parents=True, exist_ok=True)
    for exercise in exercises:
        for folder, cells in (("notebooks", _blank(exercise)), ("answers", exercise.cells)):
            _write(exercise, cells, www / folder / f"{exercise.name}.ipynb")
        page = {"exercise": exercise, "parts": list(_parts(exercise))}
        write_page(source, www / f"{exercise.name}.html", exercise.title, exercises, **page)
    for path in sorted((source / "pages").glob("*.md")):
        head, body = _head(path)
        target = www / f"{path.stem}.html"
        write_page(source, target, head["title"], exercises, name=path.stem, body=to_html(body))
    # For learners' own computers, where the package `workshop` is not installed.
    checks = source / "workshop" / "checks.py"
    (www / "notebooks" / "workshop.py").write_bytes(checks.read_bytes())


def read(path: Path) -> Exercise:
    """Read a source.

    Raises `Failure`: a key of its head or a section is missing, or a check has no solution.
    """
    head, body = _head(path)
    if missing := {"title", "minutes", "question", "objectives"} - head.keys():
        raise Failure(f"{path}: its head lacks {', '.join(sorted(missing))}")
    cells: list[NotebookNode] = jupytext.reads(body, fmt="md").cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    places = [text.find(f"{section}\n") for section in SECTIONS]
    if -1 in places or places != sorted(places):
        raise Failure(f"{path}: expected: the sections {', '.join(SECTIONS)}, in this order")
    for before, cell in itertools.pairwise(cells):
        if cell.source.startswith("check(") and not _is(before, "solution"):
            raise Failure(f"{path}: {cell.source!r} needs a cell tagged solution before it")
    return Exercise(path.stem, cells=cells, **head)


def _head(path: Path) -> tuple[dict[str, Any], str]:
    _, head, body = path.read_text().split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(head)
    return found, body


def _is(cell: NotebookNode, tag: str) -> bool:
    return cell.cell_type == "code" and tag in cell.metadata.get("tags", [])


def to_html(text: str) -> str:
    """Return Markdown as HTML."""
    made: str = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    # Wide lines of code scroll; a keyboard has to get there, too.
    return made.replace("<pre>", '<pre tabindex="0">')


def _parts(exercise: Exercise) -> Iterator[tuple[str, str]]:
    """Yield (kind, content) for the page: `html`, `code`, `solution`, or `notes` at the end."""
    for cell in exercise.cells:
        if cell.cell_type == "code":
            yield ("solution" if _is(cell, "solution") else "code"), cell.source
        else:
            text, _, notes = cell.source.partition(NOTES)
            yield "html", to_html(text)
            if notes:
                yield "notes", to_html(notes)


def _blank(exercise: Exercise) -> Iterator[NotebookNode]:
    """Yield the cells of a learner's notebook: dots for the answers, which follow folded up."""
    for cell in exercise.cells:
        if _is(cell, "solution"):
            *_, last = (one for one in ast.parse(cell.source).body if isinstance(one, ast.Assign))
            yield new_code_cell(f"{ast.unparse(last.targets[0])} = ...")
            folded = f"```python\n{cell.source}\n```"
            yield new_markdown_cell(f"<details><summary>Solution</summary>\n\n{folded}\n</details>")
        elif cell.cell_type == "markdown" and NOTES in cell.source:
            if text := cell.source.partition(NOTES)[0].strip():
                yield new_markdown_cell(text)
        else:
            yield cell


def _write(exercise: Exercise, cells: Iterable[NotebookNode], path: Path) -> None:
    """Write a notebook: the exercise's head, then the cells; the same bytes every time."""
    lines = [f"# {exercise.title}", "", f"**{exercise.question}**", ""]
    lines += [*(f"- {one}" for one in exercise.objectives), "", f"{exercise.minutes} minutes"]
    head = new_markdown_cell("\n".join(lines))
    notebook = new_notebook(cells=[head, *cells], metadata={"kernelspec": KERNEL})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook))


def write_page(
    source: Path, target: Path, title: str, exercises: Sequence[Exercise], **values: object
) -> None:
    """Write a page that looks as the others do; `values` are for its template."""
    values = {"exercise": None, "parts": [], "body": "", "name": target.stem, **values}
    template = source / "pages" / TEMPLATE
    target.write_text(render(template, title=title, exercises=exercises, **values))
