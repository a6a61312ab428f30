"""Opens what a URL path names below the data root, and nothing else.

A path is opened first and checked afterwards, by what the kernel reports as opened.  So no link
that is changed between check and use can lead out of the root.
"""

from __future__ import annotations

import os
import stat

from .errors import RequestError, from_oserror, no_such

Found = tuple[str, str]
"""Name of an entry, and its kind: `l` for a symbolic link, `d` for a directory, `f` for a file."""


def split(path: str) -> list[str]:
    """Split a percent-decoded URL path; raise RequestError 404 for a hidden or odd segment."""
    parts = path.split("/")
    for part in parts:
        if not part or part[0] == "." or not servable(part):
            raise no_such(shown(path))
    return parts


def servable(name: str) -> bool:
    """Return whether a file of this name may be listed and served."""
    return name[0] != "." and "\\" not in name and not any(ord(c) < 32 or c == "\x7f" for c in name)


def shown(path: str) -> str:
    """Return a URL path fit for an error message: short, printable, no invalid UTF-8."""
    text = path.encode("utf-8", "replace").decode("utf-8", "replace")
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 200 else text[:200] + "..."


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_symlink():
            return "l"
        if entry.is_dir(follow_symlinks=False):
            return "d"
        return "f" if entry.is_file(follow_symlinks=False) else ""
    except OSError:
        return ""


class Tree:
    """The files and directories below one root."""

    def __init__(self, root: str, links: bool = True) -> None:
        """Take the path `root` in the file system; without `links`, symbolic links are hidden."""
        self._root = os.path.realpath(root)
        self._links = links

    def file(self, parts: list[str]) -> int:
        """Open a regular file for reading; the caller closes the descriptor.

        Raises RequestError: 404 (absent, hidden, not a regular file, or outside), 403, 503;
        IsADirectoryError if it is a directory.
        """
        # O_PATH has no side effect on FIFOs and devices, and /proc/self/fd reopens the same inode.
        name = "/".join(parts)
        try:
            found = os.open(self._path(parts), os.O_PATH | os.O_CLOEXEC)
            try:
                self._check_inside(found, parts)
                mode = os.fstat(found).st_mode
                if stat.S_ISREG(mode):
                    return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                os.close(found)
        except OSError as error:
            raise from_oserror(error, shown(name)) from None
        if stat.S_ISDIR(mode):
            raise IsADirectoryError
        raise no_such(shown(name))

    def directory(self, parts: list[str]) -> int:
        """Open a directory; the caller closes the descriptor.  Raises the same as `file`."""
        # Not O_PATH: it does not trigger an automount, and would show the empty mount point.
        name = "/".join(parts) + "/"
        try:
            found = os.open(self._path(parts), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise from_oserror(error, shown(name)) from None
        try:
            self._check_inside(found, parts)
        except RequestError:
            os.close(found)
            raise
        return found

    def scan(self, directory: int) -> list[Found]:
        """Return the servable entries of an open directory, sorted by name.

        None of them is touched: one may be the mount point of a file server that does not answer.
        """
        with os.scandir(directory) as found:
            entries = [(e.name, _kind(e)) for e in found if servable(e.name)]
        hidden = "" if self._links else "l"
        return sorted((name, kind) for name, kind in entries if kind and kind != hidden)

    def _path(self, parts: list[str]) -> str:
        return "/".join([self._root, *parts])

    def _check_inside(self, descriptor: int, parts: list[str]) -> None:
        real = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a string is wanted
        inside = real == self._root or real.startswith(self._root.rstrip("/") + "/")
        # A link may also lead to a hidden file below the root.
        linked = not self._links and parts and real != self._path(parts)
        if not inside or linked or "/." in real[len(self._root) :]:
            raise no_such(shown("/".join(parts)))
