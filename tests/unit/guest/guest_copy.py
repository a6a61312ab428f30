"""A copy of the guest's files in a directory, with stand-ins for what needs a running guest.

The scripts run as they are (sh, perl, systemd-escape, flock, curl, sockets are real); stand-ins in
PATH take the place of PID 1 and the kernel's mounts. Each writes its arguments to calls.log.
One thing is changed: `with_deadline` checks every 10 ms, not after ever longer pauses, whether a
command has ended: hundreds of these waits would take a third of the tests' time. Its deadlines are
the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from hyraxvm.config import images
from hyraxvm.stages.provision import guest_tar

TREE = Path(__file__).parents[3] / "provision/guest"
RELEASE = """\
VERSION=0.1.0
IMAGE=nfs
ACCESS=nfs
SERVER=dapdir
SERVER_VERSION="1.0.0"
SERVER_USER=nobody
HEALTH_PATH=/opendap/version
"""

# Every stand-in begins with this. It logs its call; a file `pause` with a pattern makes the first
# call that matches sleep.
HEAD = """#!/bin/sh
me=${0##*/}
echo "$me $*" >>"$HYRAX_ROOT/calls.log"
mounts=$HYRAX_ROOT/proc/self/mounts
if [ -f "$HYRAX_ROOT/pause" ] && echo "$me $*" | grep -q "$(cat "$HYRAX_ROOT/pause")"; then
    rm "$HYRAX_ROOT/pause"
    sleep 20
fi
"""
STAND_INS = {
    "systemctl": r"""
for last; do :; done
wants=$HYRAX_ROOT/etc/systemd/system/multi-user.target.wants
where() { sed -n s/^Where=//p "$HYRAX_ROOT/etc/systemd/system/$last"; }
case "$1 $2" in
"enable --quiet")
    [ ! -f "$HYRAX_ROOT/refuse-enable" ] || exit 1
    mkdir -p "$wants" && ln -s "../$last" "$wants/$last" ;;
"start "*) echo "systemd-1 $(where) autofs rw 0 0" >>"$mounts" ;;
"disable --quiet") rm -f "$wants/$last" ;;
"stop "*) [ ! -f "$HYRAX_ROOT/stop-hangs" ] || sleep 60
    place=$(where); sed "\| $place |d" "$mounts" >"$mounts.new"; mv "$mounts.new" "$mounts" ;;
"is-active "*) [ -e "$wants/$last" ] ;;
"list-units "*) cat "$HYRAX_ROOT/stalled" 2>/dev/null ;;
"show --value") cat "$HYRAX_ROOT/show-$3" 2>/dev/null ;;
esac""",
    "mount": r"""
echo begin >>"$HYRAX_ROOT/mount.log"
cat "$HYRAX_ROOT/mount-says" >&2 2>/dev/null && exit 32
[ ! -d "$HYRAX_ROOT/export" ] || cp -r "$HYRAX_ROOT/export/." "$HYRAX_ROOT/mnt"
[ ! -f "$HYRAX_ROOT/slow" ] || sleep 0.3
echo end >>"$HYRAX_ROOT/mount.log" """,
    # when the real one ends, the kernel unmounts what is at /mnt
    "unshare": r"""shift
[ "$1" != -- ] || shift
"$@"
status=$?
rm -rf "$HYRAX_ROOT/mnt"; mkdir "$HYRAX_ROOT/mnt"
exit $status""",
    "umount": r"""
for last; do :; done
# what was mounted there last
line=$(grep -n " $last " "$mounts" | tail -n 1 | cut -d : -f 1)
[ -n "$line" ] || exit 32
sed "${line}d" "$mounts" >"$mounts.new"; mv "$mounts.new" "$mounts" """,
    "setpriv": r"""while [ "$1" != -- ]; do shift; done; shift
[ ! -f "$HYRAX_ROOT/forbid-$1" ] || exit 1
exec "$@" """,
    "ip": r"""[ "$2" = address ] && cat "$HYRAX_ROOT/addresses" """,
    "agetty": "",
    "udevadm": "",
    "modprobe": "",
    # used by the menu; the tests need not run as root
    "sudo": r"""[ "$1" != -- ] || shift
exec "$@" """,
    "passwd": "",
    # the kernel's messages since the line that the trial mount has written
    "dmesg": r"""cat "$HYRAX_ROOT/dev/kmsg" "$HYRAX_ROOT/kernel-says" 2>/dev/null""",
}


@cache
def rendered() -> dict[str, str]:
    """Return path -> text of the guest's files that are templates."""
    recipe = images.recipe(images.load(), "nfs", "dapdir")
    return {name: text for name, (text, _) in guest_tar.guest_files(recipe).items()}


class Pattern:
    """The files of a new guest, made once; each guest has hard links to them."""

    def __init__(self, path: Path) -> None:
        self.tree, self.bin = path / "tree", path / "bin"
        shutil.copytree(TREE, self.tree, ignore=shutil.ignore_patterns("*.j2"))
        for name, text in rendered().items():
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / name).write_text(text)
        library = self.tree / "usr/lib/hyrax-vm/lib.sh"
        edit(library, '        sleep "0.$pause"', "        pause=01\n        sleep 0.01")
        self.bin.mkdir()
        for name, body in STAND_INS.items():
            (self.bin / name).write_text(f"{HEAD}{body}\n")
            (self.bin / name).chmod(0o755)
        self.made = self.digest()

    def digest(self) -> str:
        """Return a digest of all content, to find a test that has changed files of all guests."""
        total = hashlib.sha256()
        for folder in (self.tree, self.bin):
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    total.update(f"{path}\0{path.stat().st_mode}\0".encode() + path.read_bytes())
        return total.hexdigest()


def edit(path: Path, before: str, after: str) -> None:
    """Replace a text in a file of a guest, without changing the pattern that it is linked to."""
    text = path.read_text()
    assert before in text, (path, before)
    write(path, text.replace(before, after))


def write(path: Path, text: str) -> None:
    """Write a new file in place of a linked one, with the same mode."""
    mode = path.stat().st_mode if path.exists() else None
    path.unlink(missing_ok=True)
    path.write_text(text)
    if mode is not None:
        path.chmod(mode)


class Guest:
    """The guest's files under `root`, and how to run one."""

    def __init__(self, path: Path, pattern: Pattern) -> None:
        self.root = path / "root"
        shutil.copytree(pattern.tree, self.root, copy_function=os.link)
        for name in ("proc/self", "mnt", "run", "dev", "sys/class/net/eth0", "etc/systemd/system"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.write("proc/self/mounts", "/dev/sda3 / ext4 rw 0 0\n")
        self.write("proc/uptime", "90000.50 100.00\n")
        self.write("etc/shadow", "opendap:!:20000::::::\n")
        self.write("addresses", "2: eth0    inet 192.0.2.7/24 brd 192.0.2.255 scope global eth0\n")
        self.write("calls.log", "")
        self.bin = path / "bin"
        shutil.copytree(pattern.bin, self.bin, copy_function=os.link)
        path_var = f"{self.bin}:{os.environ['PATH']}:/usr/sbin:/sbin"
        self.pretend_access("nfs")
        self.env = {"HYRAX_ROOT": str(self.root), "PATH": path_var}

    def stand_in(self, name: str, body: str) -> None:
        """Put a shell script in the place of a program."""
        write(self.bin / name, f"{HEAD}{body}\n")
        (self.bin / name).chmod(0o755)

    def answer_for(self, units: str, state: str) -> None:
        """Make systemctl report this state for the units that match this pattern."""
        answer = f'case "$*" in *{units}*) echo {state}; [ {state} = active ]; exit ;; esac\n'
        self.stand_in("systemctl", answer + STAND_INS["systemctl"])

    def pretend_access(self, access: str) -> None:
        """Make this a guest of the image for another access kind."""
        text = RELEASE.replace("ACCESS=nfs", f"ACCESS={access}").replace("=nfs\n", f"={access}\n")
        self.write("etc/hyrax-vm-release", text)

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        write(self.root / name, text)

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def popen(self, *command: str) -> subprocess.Popen[str]:
        program = self.root / command[0]
        return subprocess.Popen(
            [str(program), *command[1:]],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def run(self, *command: str, stdin: str | None = None) -> tuple[int, str, str]:
        """Run a program of the guest; return (exit status, stdout, stderr)."""
        done = subprocess.run(
            [str(self.root / command[0]), *command[1:]],
            env=self.env,
            input=stdin or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
        )
        return done.returncode, done.stdout, done.stderr

    def data(self, *arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
        return self.run("usr/bin/hyrax-data", *arguments, stdin=stdin)

    def state(self) -> dict[str, str]:
        """Return path -> content of everything that a data set may leave behind."""
        found = {}
        for top in ("etc", "srv", "mnt", "proc"):
            for path in sorted((self.root / top).rglob("*")):
                # directories that the tool makes once and keeps
                if path.is_dir() and path.name in ("data", "data.d", "hyrax", "srv"):
                    continue
                if path.name == "multi-user.target.wants":
                    continue
                name = str(path.relative_to(self.root))
                found[name] = path.read_text() if path.is_file() else "not a file"
        return found


def divert_curl(guest: Guest, port: int) -> None:
    guest.stand_in("curl", f'exec /usr/bin/curl --connect-to 127.0.0.1:8080:127.0.0.1:{port} "$@"')
