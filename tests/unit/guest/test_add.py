"""hyrax-data add and remove: what they keep and say, and that they leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.guest.guest_copy import STAND_INS, Guest, edit

TEXT: dict[str, Any] = {"text": True, "capture_output": True}
UNITS = "etc/systemd/system/"
MOUNT = """\
# Written by hyrax-data; `hyrax-data remove a-b` deletes it.
[Unit]
Description=Data set a-b
StartLimitIntervalSec=0

[Mount]
What=127.0.0.1:/x/100%% é
Where=/srv/hyrax/data/a-b
Type=nfs4
Options=ro,vers=4,port={port},softerr,timeo=50,retrans=2,retry=0,actimeo=5,nosuid,nodev,noexec,_netdev,nofail
TimeoutSec=30
LazyUnmount=yes
ForceUnmount=yes
"""


def test_add_keeps_units_and_conf_and_prints_the_url(guest: Guest, port: int) -> None:
    url = f"nfs://127.0.0.1:{port}/x/100%25%20%C3%A9"
    (guest.root / "export").mkdir()
    guest.write("export/a.nc", "x")
    assert guest.data("add", url, "--as", "a-b") == (
        0,
        "http://192.0.2.7:8080/opendap/data/a-b/\n",
        "",
    )
    name = "srv-hyrax-data-a\\x2db"
    assert guest.read(f"{UNITS}{name}.mount") == MOUNT.format(port=port)
    automount = guest.read(f"{UNITS}{name}.automount")
    assert "Where=/srv/hyrax/data/a-b\nTimeoutIdleSec=300\n" in automount
    assert "StartLimitIntervalSec=0" in automount and "WantedBy=multi-user.target" in automount
    assert guest.read("etc/hyrax/data.d/a-b.conf") == (
        f"NAME=a-b\nURL={url}\nLOGIN=\nVERS=4\nOPTIONS=\n"
    )
    assert (guest.root / "srv/hyrax/data/a-b").is_dir()
    calls = guest.read("calls.log").splitlines()
    trial = next(call for call in calls if call.startswith("mount "))
    options = MOUNT.format(port=port).split("Options=")[1].split(",_netdev")[0]
    assert trial == f"mount -t nfs4 -o {options} 127.0.0.1:/x/100% é {guest.root}/mnt"
    assert "setpriv --reuid nobody" in guest.read("calls.log")
    assert list((guest.root / "mnt").iterdir()) == []
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", guest.root / f"{UNITS}{name}.automount"],
        env=guest.env | {"SYSTEMD_UNIT_PATH": f"{guest.root / UNITS}:"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, [x for x in done.stderr.splitlines() if name in x]) == (0, [])


def test_remove_leaves_nothing(guest: Guest, port: int) -> None:
    before = guest.state()
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    assert guest.state() != before
    guest.write(
        "proc/self/mounts",
        guest.read("proc/self/mounts") + "127.0.0.1:/sst /srv/hyrax/data/sst nfs4 ro 0 0\n",
    )
    assert guest.data("remove", "sst") == (0, "sst is no longer served\n", "")
    assert guest.state() == before
    # The order in which the watchdog does it too; see assert_cut_off in test_watchdog_detaches.
    steps = [
        line
        for line in guest.read("calls.log").splitlines()
        if line.startswith(("umount ", "systemctl stop "))
    ]
    assert steps == [
        "umount --lazy --force --no-canonicalize /srv/hyrax/data/sst",
        "systemctl stop --job-mode=ignore-dependencies srv-hyrax-data-sst.automount",
        "systemctl stop srv-hyrax-data-sst.mount",
    ]


def test_remove_when_only_units_are_left_and_stop_fails(guest: Guest, port: int) -> None:
    before = guest.state()
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    (guest.root / "etc/hyrax/data.d/sst.conf").unlink()
    # an add also works over what a power cut has left
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    (guest.root / "etc/hyrax/data.d/sst.conf").unlink()
    edit(guest.bin / "systemctl", '"stop "*)', '"stop "*) exit 1;;\n"x")')
    assert guest.data("remove", "sst")[0] == 0
    assert "umount --lazy --force" in guest.read("calls.log")
    assert guest.state() == before


def test_files_at_the_mount_point_are_never_removed(guest: Guest, port: int) -> None:
    guest.write("srv/hyrax/data/sst/precious.nc", "x")
    status, out, err = guest.data("add", f"nfs://127.0.0.1:{port}/sst")
    assert (status, out) == (2, "") and "already holds files on this VM's own disk" in err
    assert guest.read("srv/hyrax/data/sst/precious.nc") == "x"


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (
            "mount.nfs4: mounting h:/x failed, reason given by server: No such file or directory",
            "does not offer '/sst' to this VM",
        ),
        ("mount.nfs4: access denied by server while mounting h:/x", "permission denied"),
        ("mount.nfs4: Operation not permitted", "'insecure' if the VM is behind NAT"),
        ("mount.nfs4: Protocol not supported", "does not offer NFS version 4"),
        ("mount.nfs4: Connection timed out", "but its NFS server does not answer"),
        ("mount.nfs4: mount system call failed", "no NFS server answers there"),
        # The port was found open before.
        ("mount.nfs4: Connection refused", "no NFS server answers there"),
    ],
)
def test_a_refused_mount_in_words(guest: Guest, port: int, says: str, words: str) -> None:
    before = guest.state()
    guest.write("mount-says", f"mount.nfs4: trying\n{says}\n")
    status, out, err = guest.data("add", f"nfs://127.0.0.1:{port}/sst")
    assert (status, out) == (1, "")
    assert words in err and err.count("\n") == 1 and "--force" in err
    assert guest.state() == before


def test_a_closed_port_and_an_unknown_host_in_words(guest: Guest, closed_port: int) -> None:
    before = guest.state()
    status, _, err = guest.data("add", f"nfs://127.0.0.1:{closed_port}/sst")
    assert status == 1 and f"127.0.0.1 refuses connections on port {closed_port}" in err
    status, _, err = guest.data("add", "nfs://no-such-host.invalid/sst")
    assert status == 1 and "the host 'no-such-host.invalid' is not found" in err
    assert guest.state() == before and "mount " not in guest.read("calls.log").split("ip")[0]


def test_force_keeps_it_for_later(guest: Guest, closed_port: int) -> None:
    url = f"nfs://127.0.0.1:{closed_port}/sst"
    status, out, err = guest.data("add", "--force", url)
    assert (status, out) == (0, "http://192.0.2.7:8080/opendap/data/sst/\n")
    assert "refuses connections" in err and "tries again" in err
    assert guest.data("list") == (0, f"{'sst':20} {url}\n", "")


def test_the_servers_user_and_an_empty_export(guest: Guest, port: int) -> None:
    url = f"nfs://127.0.0.1:{port}/sst"
    guest.write("forbid-find", "")
    before = guest.state()
    status, _, err = guest.data("add", url)
    uid = subprocess.run(["id", "-u", "nobody"], capture_output=True, text=True).stdout.strip()
    assert status == 1 and f"user (nobody, uid {uid}) may not read '/sst'" in err
    assert guest.state() == before
    (guest.root / "forbid-find").unlink()
    guest.write("forbid-head", "")
    guest.write("export/deep/a b.nc", "x")
    status, _, err = guest.data("add", url)
    assert status == 0 and "may not read 'deep/a b.nc'" in err
    (guest.root / "export/deep/a b.nc").unlink()
    (guest.root / "export/deep").rmdir()
    status, _, err = guest.data("add", url, "--as=other")
    assert (status, err) == (
        0,
        "hyrax-data: the NFS export is empty; files put there later appear by themselves\n",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add"], "add needs a URL"),
        (["add", "nfs://h/x", "nfs://h/y"], "one too many"),
        (["add", "nfs://h/x", "--as"], "--as needs a name"),
        (["add", "nfs://h/x", "--as", ""], "--as sst-2020"),
        (["add", "nfs://h/x", "--as", "../x"], "'../x' cannot be a name"),
        (["add", "nfs://h/x", "--as", "-x"], "cannot be a name"),
        (["add", "nfs://h/x", "--as", ".x"], "cannot be a name"),
        (["add", "nfs://h/x", "--as", "a\nb"], "'a?b' cannot be a name"),
        (["add", "nfs://h/x", "--as", "é"], "cannot be a name"),
        (["add", "nfs://h/x", "--as", "a" * 64], "cannot be a name"),
        (["add", "nfs://h/x", "--as", "a" + "-" * 60], "cannot be a name"),
        (["add", "nfs://h/a%20b"], "'a b' cannot be a name"),
        (["add", "nfs://h/"], "has no name to use"),
        (["add", "nfs://h/x", "--soft"], "not an option"),
        (
            ["add", "nfs://h/x", "--nfs-version", "3"],
            "'3' is not a version of NFS that can be used; expected one of: 4, ",
        ),
        (["add", "nfs://h/x", "--nfs-version", "4.1,suid"], "is not a version of NFS"),
        (["add", "nfs://h/x", "--nfs-version"], "--nfs-version needs a value"),
        (["add", "nfs://h/x", "--smb-version", "3.0"], "--smb-version is for SMB shares"),
        (["add", "nfs://h/x", "--options"], "--options needs a value"),
        (["add", "nfs://h/x", "--options="], "--options needs a value"),
        (["add", "h:/x"], "not an nfs:// or smb:// URL"),
        (
            ["add", "smb://h/x"],
            "this image (nfs) has no client for smb:// URLs; get hyrax-vm-smb-dapdir1.0.0",
        ),
        (["remove"], "remove takes one name"),
        (["remove", "x"], "no data set is called 'x'"),
        (["remove", "../x"], "cannot be a name"),
        (["status", "x"], "no data set is called 'x'"),
        (["test", "x"], "no data set is called 'x'"),
        (["list", "x"], "list takes nothing"),
        (["mount\033[2J"], "'mount?[2J' is not a command"),
    ],
)
def test_users_mistakes(guest: Guest, arguments: list[str], words: str) -> None:
    before = guest.state()
    status, out, err = guest.data(*arguments)
    assert (status, out) == (2, "")
    assert words in err and err.startswith("hyrax-data: ") and err.count("\n") == 1
    assert guest.state() == before


def test_no_command_shows_the_help(guest: Guest) -> None:
    status, out, _ = guest.data("--help")
    assert status == 0 and "http://192.0.2.7:8080/opendap/data/NAME/" in out
    assert guest.data() == (2, "", out)


def test_a_name_in_use_says_for_what(guest: Guest, port: int) -> None:
    url = f"nfs://127.0.0.1:{port}/sst"
    assert guest.data("add", url)[0] == 0
    status, out, err = guest.data("add", url)
    assert (status, out) == (2, "")
    assert f"in use for {url}; add --replace to replace it" in err


def test_one_is_replaced_when_the_other_can_be_used(
    guest: Guest, port: int, closed_port: int
) -> None:
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    before = guest.state()
    for wrong in (f"nfs://127.0.0.1:{closed_port}/sst", f"nfs://127.0.0.1:{port}/x/../sst"):
        assert guest.data("add", wrong, "--replace")[0] != 0
        assert guest.state() == before
    assert guest.data("add", f"nfs://127.0.0.1:{port}/new/sst", "--replace")[0] == 0
    assert "/new/sst\n" in guest.read("etc/hyrax/data.d/sst.conf")
    assert guest.read("proc/self/mounts").count(" /srv/hyrax/data/sst autofs ") == 1


def test_one_that_cannot_be_replaced_is_served_on(guest: Guest, port: int) -> None:
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    before = guest.state()
    # The trial mount works, and mounting it in its place does not.
    guest.stand_in("ls", 'case $1 in -d) exit 1 ;; esac; exec /usr/bin/ls "$@"')
    status, out, err = guest.data("add", f"nfs://127.0.0.1:{port}/new/sst", "--replace")
    assert (status, out) == (1, "") and "did not; the former one is served on" in err
    assert guest.state() == before
    guest.write("refuse-enable", "")
    status, _, err = guest.data("add", f"nfs://127.0.0.1:{port}/new/sst", "--replace", "--later")
    assert status == 1 and "cannot be set up; the former one is served on" in err
    assert "/sst\n" in guest.read("etc/hyrax/data.d/sst.conf")


def wait_for(path: Path, gone: bool = False, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while path.exists() == gone:
        assert time.monotonic() < end, f"{path} after {seconds} s"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("mount -t nfs4", signal.SIGTERM),
        ("systemctl daemon-reload", signal.SIGTERM),
        ("systemctl enable", signal.SIGTERM),
        ("systemctl enable", signal.SIGINT),
        ("mount -t nfs4", signal.SIGHUP),
        ("agetty", signal.SIGTERM),
    ],
)
def test_interrupted_add(guest: Guest, port: int, step: str, number: signal.Signals) -> None:
    """Interrupted at any step, add leaves nothing; at the last one (the banner), all of it."""
    before = guest.state()
    guest.write("pause", f"^{step}")
    process = guest.popen("usr/bin/hyrax-data", "add", f"nfs://127.0.0.1:{port}/sst")
    wait_for(guest.root / "pause", gone=True)
    time.sleep(0.05)
    start = time.monotonic()
    os.killpg(process.pid, number)
    process.communicate(timeout=10)
    assert time.monotonic() - start < 3
    assert process.returncode in (130, 143)
    (guest.root / "pause").unlink(missing_ok=True)
    if step == "agetty":
        assert guest.data("list")[1].startswith("sst ")
    else:
        assert guest.state() == before
    # A killed process may need a moment on a busy machine.
    end = time.monotonic() + 5
    while "/sst" in subprocess.run(["pgrep", "-fa", guest.root], **TEXT).stdout:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_interrupted_replacement(guest: Guest, port: int) -> None:
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    before = guest.state()
    guest.write("pause", "^systemctl enable")
    url = f"nfs://127.0.0.1:{port}/new/sst"
    process = guest.popen("usr/bin/hyrax-data", "add", url, "--replace")
    wait_for(guest.root / "pause", gone=True)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert guest.state() == before


def test_interrupted_remove_is_finished(guest: Guest, port: int) -> None:
    before = guest.state()
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    guest.write("pause", "^systemctl stop")
    process = guest.popen("usr/bin/hyrax-data", "remove", "sst")
    wait_for(guest.root / "pause", gone=True)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=10)
    assert guest.state() == before


def test_a_failing_systemctl_undoes_the_add(guest: Guest, port: int) -> None:
    before = guest.state()
    guest.write("refuse-enable", "")
    status, out, err = guest.data("add", f"nfs://127.0.0.1:{port}/sst")
    assert (status, out) == (1, "") and "nothing was kept" in err
    assert guest.state() == before


def test_two_at_once_are_serialised(guest: Guest, port: int) -> None:
    url = f"nfs://127.0.0.1:{port}/sst"
    guest.write("slow", "")
    running = [guest.popen("usr/bin/hyrax-data", "add", url) for _ in range(2)]
    running.append(guest.popen("usr/bin/hyrax-data", "add", url, "--as", "other"))
    for process in running:
        process.communicate(timeout=20)
    assert sorted(process.returncode for process in running) == [0, 0, 2]
    assert guest.read("mount.log").split() == ["begin", "end", "begin", "end"]
    assert [line.split()[0] for line in guest.data("list")[1].splitlines()] == ["other", "sst"]


KILL = """
# Counts the programs that the command starts; kills all of it before the one that `cut` names.
if [ -s "$HYRAX_ROOT/cut" ]; then
    read -r left <"$HYRAX_ROOT/cut"
    if [ "$left" -eq 1 ]; then
        : >"$HYRAX_ROOT/cut"
        kill -s KILL -- "-$(cat "$HYRAX_ROOT/group")"
        exit 1
    fi
    echo $((left - 1)) >"$HYRAX_ROOT/cut"
fi
"""


@pytest.mark.parametrize("step", ["add", "replace", "remove"])
def test_killed_before_any_of_its_programs_it_leaves_the_old_or_the_new(
    guest: Guest, port: int, step: str
) -> None:
    """What the next command, the watchdog or the next boot then finds and puts back."""
    for name in ("cat", "ln", "mkdir", "mv", "rm", "rmdir", "sync"):
        guest.stand_in(name, f'{KILL}exec /usr/bin/{name} "$@"')
    guest.stand_in("systemctl", KILL + STAND_INS["systemctl"])
    old = ["add", f"nfs://127.0.0.1:{port}/old/sst", "--replace", "--later"]
    new = ["add", f"nfs://127.0.0.1:{port}/new/sst", "--replace", "--later"]
    remove = ["remove", "sst"]
    begin, command = {"add": (remove, new), "replace": (old, new), "remove": (old, remove)}[step]
    guest.data(*old)
    guest.data(*command)
    after = guest.state()
    guest.data(*begin)
    before = guest.state()
    assert before != after
    go = 'echo $$ >"$HYRAX_ROOT/group"; exec "$HYRAX_ROOT/usr/bin/hyrax-data" "$@"'
    states = []
    for number in range(1, 100):
        guest.write("cut", f"{number}\n")
        arguments = ["sh", "-c", go, "sh", *command]
        done = subprocess.run(arguments, env=guest.env, start_new_session=True, **TEXT)
        guest.write("cut", "")
        assert guest.data("recover")[0] == 0
        states.append(guest.state())
        if done.returncode != -signal.SIGKILL:
            break
        if states[-1] != before:
            guest.data(*begin)
    # Up to one moment it is the old one; from then on the new one, all of it.
    switched = states.index(after)
    assert states == [before] * switched + [after] * (len(states) - switched)
    assert 0 < switched < len(states) - 3
    assert list((guest.root / "var/lib/hyrax/undo").iterdir()) == []
