"""The root file system of a container image, merged from its layers without unpacking them.

Owners, setuid bits, extended attributes, hard links and device nodes stay entries of a tar and
never become files of the host: nothing needs root, and a hostile layer cannot reach the host.
The rules are those of the OCI Image Specification 1.1, "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

import copy
import re
import tarfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from hyraxvm.core.errors import Failure
from hyraxvm.stages.server.layer import Budget, read_layer
from hyraxvm.stages.server.node import ATTRIBUTE, KEPT, Node, write_tar

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
LONGEST = 64 * 2**20  # bytes of a file that is read into memory
HOPS = 40  # symbolic links on one path, as in Linux
DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE)


@dataclass
class Tree:
    """Path without a leading slash -> node; the root directory itself is not listed."""

    nodes: dict[str, Node] = field(default_factory=dict)
    dropped_devices: int = 0
    budget: Budget = field(default_factory=Budget)
    # Directory -> names in it: removing a directory takes only as long as it is large.
    _names: dict[str, dict[str, None]] = field(default_factory=dict)

    def apply(self, layer: Path) -> None:
        """Apply one uncompressed layer, a tar, on top of the layers before it.

        Raises `Failure`: the layer is not a tar, an entry tries to leave the root, or the image
        costs more than its budget.
        """
        source, members = read_layer(layer, self.budget)
        added = []
        for info in members:
            self.budget.check_time(layer.name)
            path = _clean(info.name, layer)
            name = _split(path)[1]
            if name.startswith(WHITEOUT):
                self._white_out(path, name, layer)
            elif path:
                added.append((path, info))
        # Whiteouts apply to the layers below, wherever they are in the tar.
        for path, info in added:
            self.budget.check_time(layer.name)
            self._add(path, info, source, layer)

    def _white_out(self, path: str, name: str, layer: Path) -> None:
        if name == WHITEOUT:
            raise Failure(f"{layer.name}: the whiteout {path!r} hides nothing; refused")
        place = self._inside(_split(path)[0], layer)
        if name == OPAQUE:
            self._forget(place, keep=True)
        elif not name.startswith(WHITEOUT + WHITEOUT):  # aufs' own bookkeeping
            self._forget(_join(place, name.removeprefix(WHITEOUT)))

    def _add(self, path: str, info: tarfile.TarInfo, source: tarfile.TarFile, layer: Path) -> None:
        if info.type in DEVICES:
            self.dropped_devices += 1
            return
        parent, name = _split(path)
        final = _join(self._inside(parent, layer), name)
        if info.islnk():
            parent, name = _split(_clean(info.linkname, layer))
            target = _join(self._inside(parent, layer), name)
            node = self.nodes.get(target)
            if node is None or node.info.isdir():
                raise Failure(
                    f"{layer.name}: {path!r} is a hard link to {target!r}, which is not a file"
                )
        else:
            node = Node(info, source)
        old = self.nodes.get(final)
        if old is not None and not (old.info.isdir() and node.info.isdir()):
            self._forget(final)
        self._put(final, node)

    def _inside(self, folder: str, layer: Path) -> str:
        """Return the real directory of a path; follow links inside the root, make missing ones.

        Raises `Failure`: the path leads through a file, or through a loop of links.
        """
        try:
            found = self._follow(folder, make=True)
        except ValueError as error:
            raise Failure(f"{layer.name}: {error}") from error
        return found or ""

    def _follow(self, path: str, *, make: bool = False) -> str | None:
        """Resolve links as a process does that has this root; return None if nothing is there.

        With `make`, missing directories are made.  Raises `ValueError`: a loop of links, or with
        `make` a file in the way.
        """
        rest = [part for part in path.split("/") if part not in ("", ".")][::-1]
        done: list[str] = []
        hops = 0
        while rest:
            part = rest.pop()
            if part == "..":
                done = done[:-1]
                continue
            here = "/".join([*done, part])
            node = self.nodes.get(here)
            if node is None:
                if not make:
                    return None
                self.budget.take(repr(path[:200]), 1, len(here), 0)
                node = Node(_directory(here))
                self._put(here, node)
            if node.info.issym():
                hops += 1
                if hops > HOPS:
                    raise ValueError(f"{path!r} leads into a loop of symbolic links")
                target = node.info.linkname
                if target.startswith("/"):
                    done = []
                rest += [step for step in target.split("/") if step not in ("", ".")][::-1]
                continue
            if (rest or make) and not node.info.isdir():
                if make:
                    raise ValueError(f"{path!r} leads through {here!r}, which is not a directory")
                return None
            done.append(part)
        return "/".join(done)

    def _put(self, path: str, node: Node) -> None:
        parent, name = _split(path)
        self.nodes[path] = node
        self._names.setdefault(parent, {})[name] = None

    def _forget(self, path: str, *, keep: bool = False) -> None:
        """Remove everything below `path`, and `path` itself unless `keep` is set."""
        rest = [path]
        while rest:
            here = rest.pop()
            rest += [_join(here, name) for name in self._names.pop(here, ())]
            if here != path:
                del self.nodes[here]
        if not keep and path in self.nodes:
            del self.nodes[path]
            parent, name = _split(path)
            del self._names[parent][name]

    # ------------------------------------------------------------------ for a server's own folder

    def resolve(self, path: str) -> str | None:
        """Return the real path of `path`, with a leading slash, or None if nothing is there."""
        try:
            found = self._follow(path)
        except ValueError:
            return None
        return None if found is None else f"/{found}"

    def node(self, path: str) -> Node | None:
        """Return the node that `path` leads to, or None; also None for the root."""
        found = self.resolve(path)
        return None if found is None else self.nodes.get(found.lstrip("/"))

    def is_dir(self, path: str) -> bool:
        """Return whether `path` leads to a directory."""
        node = self.node(path)
        return node is not None and node.info.isdir()

    def is_program(self, path: str) -> bool:
        """Return whether `path` leads to a file that somebody may execute."""
        node = self.node(path)
        return node is not None and node.info.isreg() and bool(node.info.mode & 0o111)

    def listing(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; empty if there is no such directory."""
        found = self.resolve(path)
        if found is None:
            return []
        return sorted(self._names.get(found.lstrip("/"), ()))

    def called(self, name: str) -> list[str]:
        """Return every path whose last part is `name`."""
        return sorted(f"/{path}" for path in self.nodes if path.rsplit("/", 1)[-1] == name)

    def glob(self, pattern: str) -> list[str]:
        """Return every path that matches: `*`, `?` and sets within a part, `**` across parts."""
        wanted = _pattern(pattern)
        return sorted(f"/{path}" for path in self.nodes if wanted.fullmatch(path))

    def read(self, path: str) -> bytes | None:
        """Return the content of the file that `path` leads to, or None if it is not a file.

        Raises `Failure`: it is too long to be read into memory.
        """
        node = self.node(path)
        if node is None or not node.info.isreg():
            return None
        if node.info.size > LONGEST:
            raise Failure(
                f"the image's {path} has {node.info.size / 1e6:.0f} MB; must be at most "
                f"{LONGEST / 1e6:.0f} MB"
            )
        with node.open() as stream:
            return stream.read()

    def write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Write a file that root owns; replace what is there.

        Raises `Failure`: a file is in the way of a directory, or links form a loop.
        """
        parent, name = _split(path.lstrip("/"))
        place = _join(self._made(parent, f"file {path} cannot be written"), name)
        info = tarfile.TarInfo(place)
        info.size, info.mode = len(content), mode
        self._forget(place)
        self._put(place, Node(info, content=content))

    def make_dir(self, path: str, uid: int, gid: int, mode: int = 0o755) -> str:
        """Make a directory with this owner and mode, or change those of an existing one.

        Return its real path.  Raises `Failure`: a file is in the way, or the path is the root.
        """
        place = self._made(path, f"directory {path} cannot be made")
        if not place:
            raise Failure(f"the image's directory {path} cannot be made: it is the image's root")
        node = self.nodes[place]
        node.info = copy.copy(node.info)
        node.info.uid, node.info.gid, node.info.mode = uid, gid, mode
        return f"/{place}"

    def _made(self, path: str, fault: str) -> str:
        try:
            return self._follow(path, make=True) or ""
        except ValueError as error:
            raise Failure(f"the image's {fault}: {error}") from error

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Change the owner of `path` and everything below it, as `chown -R` does."""
        found = (self.resolve(path) or "").lstrip("/")
        for name, node in self.nodes.items():
            if name == found or name.startswith(f"{found}/"):
                node.info.uid, node.info.gid = uid, gid

    def remove(self, pattern: str) -> tuple[int, int]:
        """Remove what matches a glob, and everything below it; return (paths, bytes) removed."""
        paths, size = len(self.nodes), self.size()
        for path in self.glob(pattern):
            self._forget(path.lstrip("/"))
        return paths - len(self.nodes), size - self.size()

    # ---------------------------------------------------------------------------------- the result

    def distinct(self) -> Iterable[Node]:
        """Return each node once, however many names it has."""
        return {id(node): node for node in self.nodes.values()}.values()

    def size(self) -> int:
        """Return the bytes of all regular files, each counted once."""
        return sum(node.info.size for node in self.distinct())

    def dropped_attributes(self) -> dict[str, int]:
        """Return extended attributes that squashfs cannot store, such as POSIX ACLs.

        Name -> number of files that have it.
        """
        names = (
            name.removeprefix(ATTRIBUTE)
            for node in self.distinct()
            for name in node.info.pax_headers
            if name.startswith(ATTRIBUTE) and not name.startswith(KEPT)
        )
        return dict(sorted(Counter(names).items()))

    def write_tar(self, sink: IO[bytes]) -> None:
        """Write the tree as a POSIX.1-2001 tar, sorted: the same tree gives the same bytes."""
        write_tar(self.nodes, sink)


def merge(layers: Iterable[Path], budget: Budget | None = None) -> Tree:
    """Merge layers, the lowest one first; raise `Failure` as `Tree.apply` does."""
    tree = Tree(budget=budget or Budget())
    for layer in layers:
        tree.apply(layer)
    return tree


def _clean(name: str, layer: Path) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise Failure(f"{layer.name}: the entry {name[:200]!r} leads out of the image; refused")
    return "/".join(parts)


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return parent, name


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _directory(path: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


def _pattern(pattern: str) -> re.Pattern[str]:
    """Return a glob as a regular expression; `*` and sets do not match a slash."""
    pieces = []
    for part in pattern.strip("/").split("/"):
        if part == "**":
            pieces.append("(?:[^/]+/)*")
            continue
        text = ""
        for token in re.findall(r"\*|\?|\[!?[^]/]+\]|.", part):
            plain = re.escape(token)
            text += {"*": "[^/]*", "?": "[^/]"}.get(
                token, "[" + token[1:-1].replace("!", "^/", 1) + "]" if len(token) > 1 else plain
            )
        pieces.append(text + "/")
    return re.compile("".join(pieces).removesuffix("/"), re.DOTALL)
