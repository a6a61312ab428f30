"""Files in an ext4 file system that nothing has mounted, read and written by debugfs(8).

So neither root nor a loop device is needed.  debugfs reports most failures in words alone, so what
is written is read back and compared.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from hyraxvm.core.errors import Failure
from hyraxvm.core.process import dying_with_parent
from hyraxvm.stages.provision.guest_tar import GuestFile

DEADLINE: Final = 120.0  # seconds for one run of debugfs or e2fsck
_FOLDER: Final = stat.S_IFDIR | 0o755


class Inode(NamedTuple):
    """What a directory says of a file: type and mode, owner, group."""

    mode: int
    uid: int
    gid: int


class FileSystem:
    """The file system that begins at byte `offset` of the file `disk`."""

    def __init__(self, disk: Path, offset: int) -> None:
        """Name the file system; open nothing."""
        self._folder = disk.parent
        self._device = f"{disk.name}?offset={offset}"

    def copy_out(self, folders: Iterable[str], target: Path) -> None:
        """Copy folders of the file system to the same places below the folder `target`."""
        commands = []
        for name in folders:
            parent = (target / name).parent
            parent.mkdir(parents=True, exist_ok=True)
            commands.append(f"rdump {_word('/' + name)} {_word(str(parent))}")
        self._debugfs(commands)

    def entries(self, folders: Iterable[str]) -> dict[str, Inode]:
        """Return path -> entry of all that is directly in the folders; some need not exist."""
        names = list(folders)
        shown = self._debugfs([f"ls -p {_word('/' + name)}" for name in names])
        found = {}
        for name, text in zip(names, shown, strict=True):
            for mode, uid, gid, file in re.findall(
                r"^/\d+/(\d+)/(\d+)/(\d+)/([^/]+)/\d*/$", text, re.MULTILINE
            ):
                found[str(PurePosixPath(name, file))] = Inode(int(mode, 8), int(uid), int(gid))
        return found

    def write(self, files: Mapping[str, GuestFile], removed: Iterable[str], date: int) -> None:
        """Put files in, owned by root and modified at time 0; remove others.

        A folder that is missing gets the mode 0755.  What is already there as it should be stays.
        `date` (seconds since 1970) is what the file system takes for the time of day.

        Raises `Failure`: the file system is full, or a path leads through something that is not a
        folder.
        """
        gone, folders = set(removed), _parents(files)
        with tempfile.TemporaryDirectory(prefix="hyrax-vm-ext4-") as scratch:
            same = self._same(files, Path(scratch))
            there = self.entries(_parents([*files, *gone]))
            commands = [f"set_current_time @{date}"]
            for name in folders:
                if name and name not in there:
                    commands += [f"mkdir {_word('/' + name)}", *_owned(name, _FOLDER)]
            for name in sorted((gone | files.keys() - same) & there.keys()):
                commands.append(f"rm {_word('/' + name)}")
            for number, (name, file) in enumerate(sorted(files.items())):
                if name not in same:
                    commands += _put(name, file, Path(scratch, f"new{number}"))
            self._debugfs(commands, "-w")
            wrong = sorted(files.keys() - self._same(files, Path(scratch)))
            left = sorted(gone & self.entries(_parents(gone)).keys())
            if wrong or left:
                raise Failure(f"debugfs: could not write {', '.join([*wrong, *left])}")

    def check(self) -> None:
        """Raise `Failure` if e2fsck finds a fault, or would have something to do."""
        self._run(["e2fsck", "-f", "-n", self._device])

    def _same(self, files: Mapping[str, GuestFile], scratch: Path) -> set[str]:
        """Return the paths that have the content, type, mode and owner that they should have."""
        there = self.entries(_parents(files))
        wanted = {
            name: file
            for name, file in sorted(files.items())
            if there.get(name) == Inode(file.mode, 0, 0)
        }
        # A link of up to 59 bytes is in its inode, and has no content to dump.
        short = [n for n, f in wanted.items() if stat.S_ISLNK(f.mode) and len(f.content) < 60]
        dumped = sorted(wanted.keys() - set(short))
        copies = [scratch / f"old{number}" for number in range(len(dumped))]
        pairs = list(zip(dumped, copies, strict=True))
        self._debugfs([f"dump {_word('/' + name)} {_word(str(copy))}" for name, copy in pairs])
        content = {name: copy.read_bytes() for name, copy in pairs}
        shown = self._debugfs([f"stat {_word('/' + name)}" for name in short])
        for name, text in zip(short, shown, strict=True):
            target = re.search(r'^Fast link dest: "(.*)"$', text, re.MULTILINE)
            content[name] = target[1].encode() if target else b""
        return {name for name, found in content.items() if found == wanted[name].content}

    def _debugfs(self, commands: list[str], *options: str) -> list[str]:
        """Run commands; return what each has printed on standard output."""
        if not commands:
            return []
        with tempfile.NamedTemporaryFile("w", prefix="hyrax-vm-debugfs-") as script:
            script.write("".join(f"{command}\n" for command in commands))
            script.flush()
            said = self._run(["debugfs", *options, "-f", script.name, self._device])
        # debugfs repeats each command before it runs it.
        parts = re.split(r"^debugfs: .*\n", said, flags=re.MULTILINE)[1:]
        if len(parts) != len(commands):
            raise Failure(f"debugfs: cannot use {self._device}: {said.strip()[-500:]}")
        return parts

    def _run(self, argv: list[str]) -> str:
        # A path of the system's programs that ordinary users' PATH may lack; English messages.
        environment = {**os.environ, "LC_ALL": "C", "DEBUGFS_PAGER": "cat"}
        try:
            done = subprocess.run(
                dying_with_parent(argv),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=DEADLINE,
                env=environment,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failure(f"{argv[0]}: {error}") from error
        if done.returncode:
            text = f"{done.stdout}{done.stderr}".strip()
            raise Failure(f"{argv[0]}: exit status {done.returncode}: {text[-2000:]}")
        return done.stdout


def _put(name: str, file: GuestFile, source: Path) -> list[str]:
    """Return the commands that make one file, a regular one as a copy of the new file `source`."""
    if stat.S_ISLNK(file.mode):
        made = f"symlink {_word('/' + name)} {_word(file.content.decode())}"
    else:
        source.write_bytes(file.content)
        made = f"write {_word(str(source))} {_word('/' + name)}"
    return [made, *_owned(name, file.mode)]


def _owned(name: str, mode: int) -> list[str]:
    """Return the commands that give a file its mode, root as its owner, and the date 0."""
    fields = {"mode": f"0{mode:o}", "uid": "0", "gid": "0", "mtime": "@0"}
    path = _word("/" + name)
    return [f"set_inode_field {path} {field} {value}" for field, value in fields.items()]


def _parents(paths: Iterable[str]) -> list[str]:
    """Return all folders above the paths, the upper ones first; the root is the empty string."""
    found = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    return sorted("" if name == "." else name for name in found)


def _word(text: str) -> str:
    """Return a word of a command of debugfs; raise `Failure` if no quoting can make it one."""
    if '"' in text or "\n" in text:
        raise Failure(f"{text!r}: debugfs takes neither a quotation mark nor a newline in a name")
    return f'"{text}"'
