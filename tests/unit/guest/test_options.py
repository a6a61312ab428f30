"""hyrax-data add: versions, mount options, --later, --check, and a server's list of exports."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.guest.guest_copy import TREE, Guest, edit

UNIT = "etc/systemd/system/srv-hyrax-data-sst.mount"
CONF = "etc/hyrax/data.d/sst.conf"


def options(guest: Guest) -> list[str]:
    (line,) = [x for x in guest.read(UNIT).splitlines() if x.startswith("Options=")]
    return line.removeprefix("Options=").split(",")


@pytest.mark.parametrize("version", ["4", "4.2", "4.1", "4.0"])
def test_a_version_and_options_are_kept_tried_and_shown(
    guest: Guest, port: int, version: str
) -> None:
    url = f"nfs://127.0.0.1:{port}/sst"
    extra = "timeo=600,rsize=1048576,lookupcache=none,sec=sys"
    arguments = ("--nfs-version", version, "--options", extra)
    assert guest.data("add", url, *arguments)[0] == 0
    found = options(guest)
    assert f"vers={version}" in found
    # Of two contradicting options, mount takes the last.
    assert found.index("timeo=600") > found.index("timeo=50")
    assert found[-5:] == ["nosuid", "nodev", "noexec", "_netdev", "nofail"] and found[0] == "ro"
    (trial,) = [x for x in guest.read("calls.log").splitlines() if x.startswith("mount ")]
    assert f" -o {','.join(found[:-2])} " in trial
    assert guest.read(CONF) == f"NAME=sst\nURL={url}\nLOGIN=\nVERS={version}\nOPTIONS={extra}\n"
    shown = guest.data("status")[1].splitlines()[2]
    assert shown == f"    {'' if version == '4' else f'NFS {version}, '}options {extra}"
    # status tries the same mount.
    assert [x for x in guest.read("calls.log").splitlines() if x.startswith("mount ")][1] == trial


def test_options_of_shares(guest: Guest, closed_port: int) -> None:
    guest.pretend_access("smb")
    url = f"smb://127.0.0.1:{closed_port}/sst"
    arguments = ("--options=seal,cache=none", "--options", "echo_interval=60", "--force")
    assert guest.data("add", url, *arguments)[0] == 0
    found = options(guest)
    assert found.index("echo_interval=60") > found.index("echo_interval=5")
    assert {"seal", "cache=none", "ro", "nosuid", "nodev", "noexec"} <= set(found)
    assert "    options seal,cache=none,echo_interval=60" in guest.data("status")[1]


REFUSED = ["rw", "suid", "dev", "exec", "hard", "soft", "ro", "vers=3", "port=1", "proto=udp"]
REFUSED += ["credentials=/etc/shadow", "password=x", "uid=0", "remount", "bind", "x-systemd.a=b"]
REFUSED += ["timeo", "timeo=", "timeo=9", "timeo=601", "timeo=0100", "timeo=99999999999999999999"]
REFUSED += ["timeo=1e3", "timeo=100=1", "sec=krb5", "sec=none", "sec=", "sec", "nconnect=17", ""]
REFUSED += ["lookupcache=all|none", "lookupcache=all|positive|none", "rsize=4096-1048576"]


@pytest.mark.parametrize("option", REFUSED)
@pytest.mark.parametrize("around", ["{}", "timeo=100,{}", "{},timeo=100"])
def test_other_options_are_refused_with_those_that_can_be_given(
    guest: Guest, option: str, around: str
) -> None:
    if around == "{}" and not option:
        option = ","
    text = around.format(option)
    status, out, err = guest.data("add", "nfs://h/sst", "--check", "--options", text)
    if around == "timeo=100,{}" and not option:
        # One comma at the end is harmless.
        assert (status, out, err) == (0, "", "")
        return
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert "the mount options that can be given are: rsize=4096-1048576, " in err
    assert f"'{option or text}'" in err or f"'{text}'" in err or "'' cannot be used" in err


@pytest.mark.parametrize(
    "text", ["timeo=100\nrw", "timeo=100 rw", "timeo=100%s", "timeo=100;rw", "TIMEO=100", "é", "-o"]
)
def test_nothing_gets_into_the_unit(guest: Guest, text: str) -> None:
    status, _, err = guest.data("add", "nfs://h/sst", "--check", f"--options={text}")
    assert status == 2 and err.count("\n") == 1
    assert "cannot be used" in err or "must contain only lower-case letters" in err


@settings(max_examples=60, deadline=None)
@given(st.text("abcdeimnorstuxw=,0123456789-|.*[] \n", min_size=1, max_size=24))
def test_whatever_passes_is_in_the_list(text: str) -> None:
    """Test the check alone, without the rest of the command."""
    script = f". {TREE}/usr/lib/hyrax-vm/lib.sh; . {TREE}/usr/lib/hyrax-vm/data-nfs.sh; kind=nfs; "
    script += 'plain() { printf %s "$1"; }; '
    script += f'. {TREE}/usr/lib/hyrax-vm/data-add.sh; check_options "$1"'
    env = os.environ | {"HYRAX_ROOT": str(TREE)}
    done = subprocess.run(
        ["sh", "-c", script, "sh", text], env=env, capture_output=True, timeout=10
    )
    names = {"rsize", "wsize", "timeo", "retrans", "actimeo", "acregmin", "acregmax", "acdirmin"}
    names |= {"acdirmax", "lookupcache", "nconnect", "sec"}
    if done.returncode == 0:
        assert {x.split("=")[0] for x in text.removesuffix(",").split(",")} <= names
    else:
        assert done.returncode == 2


def test_later_keeps_it_without_looking_at_the_network(guest: Guest) -> None:
    """The host does not exist: any look-up would fail."""
    url = "nfs://no-such-host.invalid/sst"
    assert guest.data("add", url, "--later")[::2] == (0, "")
    calls = guest.read("calls.log")
    assert "mount " not in calls.replace("umount ", "") and "unshare" not in calls
    assert "agetty" not in calls
    assert "systemctl start --no-block srv-hyrax-data-sst.automount" in calls
    assert guest.read(CONF).startswith(f"NAME=sst\nURL={url}\n")
    assert guest.data("remove", "sst")[0] == 0


def test_later_takes_a_password(guest: Guest) -> None:
    guest.pretend_access("smb")
    url = "smb://no-such-host.invalid/sst"
    assert guest.data("add", url, "--later", "--user=me", stdin="pw\n")[::2] == (0, "")
    assert guest.read("etc/hyrax/data.d/sst.credentials") == "username=me\npassword=pw\n"


@pytest.mark.parametrize(
    ("access", "arguments", "words"),
    [
        ("nfs", ["nfs://h/sst"], ""),
        ("nfs", ["nfs://h/sst", "--as=a", "--nfs-version=4.2", "--options=nconnect=4"], ""),
        ("nfs", ["nfs://h/sst", "--as=/"], "cannot be a name"),
        ("smb", ["smb://h/sst", "--user=me"], ""),
        ("smb", ["smb://h/sst", "--user=me", "--smb-version=9"], "is not a version of SMB"),
        ("smb", ["nfs://h/sst"], "has no client for nfs://"),
        ("local", ["nfs://h/sst"], "has no client for nfs://"),
    ],
)
def test_check_changes_nothing(guest: Guest, access: str, arguments: list[str], words: str) -> None:
    guest.pretend_access(access)
    before = guest.state()
    status, out, err = guest.data("add", *arguments, "--check")
    assert (status, out, words in err) == (2 if words else 0, "", True)
    assert bool(err) == bool(words)
    assert guest.state() == before
    assert "systemctl" not in guest.read("calls.log")


NOT_FOUND = "mount.nfs4: mounting h:/x failed, reason given by server: No such file or directory"


def offering(guest: Guest) -> None:
    """Make the file server offer what is in `export`, but not the folder /sst."""
    text = f'case "$*" in *":/sst "*) echo "{NOT_FOUND}" >&2; exit 32 ;; esac\n'
    edit(guest.bin / "mount", "#!/bin/sh\n", f"#!/bin/sh\n{text}")


def test_an_export_that_is_not_there_tells_those_that_are(guest: Guest, port: int) -> None:
    offering(guest)
    for name in ("b/deep/down/at/last/x", "a/x.nc", "c d\x1b/x.nc"):
        guest.write(f"export/{name}", "x")
    (guest.root / "export/empty").mkdir()
    (guest.root / "export/link").symlink_to("a")
    before = guest.state()
    status, out, err = guest.data("add", f"nfs://127.0.0.1:{port}/sst")
    assert (status, out) == (1, "")
    # `link` is not a directory, so the names beside it are the content of an export, not exports.
    assert err == (
        "hyrax-data: 127.0.0.1 does not offer '/sst' to this VM; it offers /. "
        "Nothing was changed (to add it all the same, use --force).\n"
    )
    (guest.root / "export/link").unlink()
    err = guest.data("add", f"nfs://127.0.0.1:{port}/sst")[2]
    assert "; it offers /a, /b/deep/down/at, /c d?, /empty. Nothing" in err
    assert guest.state() == before


def test_of_many_exports_some_are_shown(guest: Guest, port: int) -> None:
    offering(guest)
    for number in range(30):
        guest.write(f"export/n{number:02}/x.nc", "x")
    err = guest.data("add", f"nfs://127.0.0.1:{port}/sst")[2]
    assert "; it offers /n00, " in err and "/n09, .... Nothing" in err and "/n10" not in err


def test_no_export_at_all_and_a_root_that_is_closed(guest: Guest, port: int) -> None:
    offering(guest)
    (guest.root / "export").mkdir()
    assert "; it offers nothing. Nothing" in guest.data("add", f"nfs://127.0.0.1:{port}/sst")[2]
    guest.write("mount-says", f"{NOT_FOUND}\n")
    err = guest.data("add", f"nfs://127.0.0.1:{port}/sst")[2]
    assert "to this VM; on 127.0.0.1 see /etc/exports and: exportfs -v. Nothing" in err


def test_a_version_that_the_server_lacks(guest: Guest, port: int) -> None:
    guest.write("mount-says", "mount.nfs4: Protocol not supported\n")
    url = f"nfs://127.0.0.1:{port}/sst"
    err = guest.data("add", url, "--nfs-version=4.2")[2]
    assert "does not speak NFS 4.2; leave --nfs-version out" in err
