"""Trimming a server's image: the paths in the server's list, and debugging sections."""

from __future__ import annotations

from collections.abc import Callable

from hyraxvm.config.model import Trimmed
from hyraxvm.stages.server import elf
from hyraxvm.stages.server.image_tree import Tree


def trim(tree: Tree, patterns: list[str], say: Callable[[str], None]) -> list[Trimmed]:
    """Remove what matches the patterns, then blank debugging sections; say and return the savings.

    Also says which patterns match nothing: a path has moved, or the pattern is wrong.
    """
    result = []
    for pattern in patterns:
        paths, size = tree.remove(pattern)
        result.append(Trimmed(pattern=pattern, paths=paths, bytes=size))
        if paths:
            say(f"trim {pattern}: {size / 1e6:.1f} MB in {paths} files")
    files, size = elf.blank_debugging(tree)
    if files:
        result.append(Trimmed(pattern="debugging sections", paths=files, bytes=size))
        say(f"trim debugging sections: {size / 1e6:.1f} MB in {files} files")
    if idle := [each.pattern for each in result if not each.paths]:
        say(f"trim: not in this image: {', '.join(idle)}")
    saved = sum(each.bytes for each in result)
    say(f"trim: {saved / 1e6:.1f} MB in all")
    return result
