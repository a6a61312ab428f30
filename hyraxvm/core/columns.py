"""Text in columns."""

from __future__ import annotations


def align(lines: list[list[str]]) -> str:
    """Return rows of cells as text: each column as wide as its widest cell, two spaces apart.

    All rows must have the same number of cells.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
