"""hyrax-data and SMB shares: options, credentials, messages; and folders on the VM's disk."""

from __future__ import annotations

import os
import pty
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.smb import PASSWORD, SmbServer
from tests.unit.guest.guest_copy import Guest

UNITS = "etc/systemd/system/"
CONF = "etc/hyrax/data.d/"
OPTIONS = (
    "ro,vers={vers},port={port},soft,echo_interval=5,actimeo=5,nosharesock,nobrl,iocharset=utf8,"
    "uid={uid},forceuid,gid={gid},forcegid,file_mode=0444,dir_mode=0555,{sign}"
    "nosuid,nodev,noexec,credentials={credentials}"
)


@pytest.fixture(autouse=True)
def smb_image(guest: Guest) -> None:
    guest.pretend_access("smb")


@pytest.fixture(scope="module")
def smbd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmbServer]:
    folder = tmp_path_factory.mktemp("smb")
    (folder / "export").mkdir()
    server = SmbServer(folder / "export", folder / "work")
    server.start()
    yield server
    server.stop()


def options(port: int, credentials: str, sign: bool = True, vers: str = "3.1.1") -> str:
    ids = [
        subprocess.run(["id", flag, "nobody"], capture_output=True, text=True).stdout.strip()
        for flag in ("-u", "-g")
    ]
    return OPTIONS.format(
        port=port,
        credentials=credentials,
        uid=ids[0],
        gid=ids[1],
        sign="sign," if sign else "",
        vers=vers,
    )


def trial(guest: Guest) -> str:
    (call,) = [x for x in guest.read("calls.log").splitlines() if x.startswith("mount ")]
    return call


def test_a_share_with_a_user(guest: Guest, smbd: SmbServer) -> None:
    before = guest.state()
    guest.write("export/a.nc", "x")
    url = f"smb://127.0.0.1:{smbd.port}/sst/My%20Data"
    share = rf"\\127.0.0.1:{smbd.port}\sst\My Data"
    guest.write("pw", PASSWORD + "\r\nsecond line\n")
    arguments = ("--user", r"SHIP\me", "--password-file", str(guest.root / "pw"), "--as=ocean")
    said = guest.data("add", share, *arguments)
    assert said == (0, "http://192.0.2.7:8080/opendap/data/ocean/\n", "")
    assert guest.read(f"{CONF}ocean.conf") == (
        f"NAME=ocean\nURL={url}\nLOGIN=SHIP\\me\nVERS=3.1.1\nOPTIONS=\n"
    )
    kept = guest.root / f"{CONF}ocean.credentials"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.read_text() == f"username=me\npassword={PASSWORD}\ndomain=SHIP\n"
    unit = guest.read(f"{UNITS}srv-hyrax-data-ocean.mount")
    assert "\nWhat=//127.0.0.1/sst/My Data\nWhere=/srv/hyrax/data/ocean\nType=cifs\n" in unit
    assert f"\nOptions={options(smbd.port, str(kept))},_netdev,nofail\n" in unit
    words = trial(guest).split(",credentials=")
    assert words[0] == f"mount -t cifs -o {options(smbd.port, 'x').rsplit(',', 1)[0]}"
    # The temporary file in /run is gone.
    work = Path(words[1].split(" ")[0])
    assert work.is_relative_to(guest.root / "run") and not work.exists()
    assert PASSWORD.strip() not in guest.read("calls.log") + unit
    assert guest.data("list")[1] == f"{'ocean':20} {url}\n"
    _, row, settings = guest.data("status")[1].splitlines()
    assert row.split()[:2] == ["ocean", "waiting"] and row.split()[-1] == url
    assert settings == "    user SHIP\\me"
    assert guest.data("remove", "ocean")[0] == 0
    (guest.root / "pw").unlink()
    assert guest.state() == before


def test_a_share_for_guests_and_an_older_server(guest: Guest, smbd: SmbServer) -> None:
    url = f"smb://127.0.0.1:{smbd.port}/sst"
    assert guest.data("add", url, "--smb-version", "2.1")[0] == 0
    assert guest.read(f"{CONF}sst.credentials") == "username=guest\npassword=\n"
    kept = str(guest.root / f"{CONF}sst.credentials")
    expected = options(smbd.port, kept, sign=False, vers="2.1")
    assert f"\nOptions={expected}," in guest.read(f"{UNITS}srv-hyrax-data-sst.mount")


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_password_from_the_standard_input(guest: Guest, smbd: SmbServer, ending: str) -> None:
    url = f"smb://127.0.0.1:{smbd.port}/sst"
    assert guest.data("add", url, "--user=me", stdin=PASSWORD + ending)[0] == 0
    assert guest.read(f"{CONF}sst.credentials") == f"username=me\npassword={PASSWORD}\n"


def at_terminal(guest: Guest, *command: str) -> tuple[subprocess.Popen[bytes], int]:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [str(guest.root / "usr/bin/hyrax-data"), *command],
        env=guest.env,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=lambda: os.login_tty(slave),
    )
    os.close(slave)
    return process, master


def read_until(master: int, wanted: bytes) -> bytes:
    shown = b""
    while wanted not in shown:
        shown += os.read(master, 4096)
    return shown


@pytest.mark.parametrize("answer", [PASSWORD.encode() + b"\n", b"half\x03"], ids=["typed", "^C"])
def test_a_password_typed_on_a_terminal(guest: Guest, smbd: SmbServer, answer: bytes) -> None:
    before = guest.state()
    process, master = at_terminal(guest, "add", f"smb://127.0.0.1:{smbd.port}/sst", "--user", "me")
    shown = read_until(master, b"Password of me on 127.0.0.1: ")
    os.write(master, answer)
    try:
        while more := os.read(master, 4096):
            shown += more
    except OSError:  # the end of a terminal
        pass
    status = process.wait(10)
    os.close(master)
    assert PASSWORD.strip().encode() not in shown and b"half" not in shown
    if b"half" in answer:
        assert status == 130
        assert guest.state() == before
    else:
        assert status == 0
        assert PASSWORD in guest.read(f"{CONF}sst.credentials")


@pytest.mark.parametrize(
    ("mount", "kernel", "login", "words"),
    [
        (13, "Status code returned 0xc000006d STATUS_LOGON_FAILURE", "me", "the user 'me' or the"),
        (13, "Status code returned 0xc000006d STATUS_LOGON_FAILURE", "", "does not let guests in"),
        (13, "x STATUS_ACCOUNT_LOCKED_OUT", "me", "let the user 'me' in: account locked out"),
        (13, "CIFS: VFS: sign fail cmd 0x3", "", "requires signed connections"),
        (13, "CIFS: VFS: sign fail cmd 0x3", "me", "does not know the user 'me'"),
        (13, "CIFS: VFS: cifs_mount failed", "me", "let the user 'me' read '/sst/a'"),
        (13, "CIFS: VFS: cifs_mount failed", "", "let a guest (no --user was named) read '/sst/a'"),
        (2, "CIFS: VFS: cifs_mount failed", "", "no share 'sst', or no folder 'a' in it"),
        (20, "", "", "no share 'sst', or no folder 'a' in it"),
        (95, "", "", "does not speak SMB 3.1.1"),
        (111, "", "", "refuses connections on port"),
        (110, "", "", "but its SMB server does not answer"),
        (112, "", "", "mount error(112): Host is down); see: journalctl -k"),
    ],
)
def test_a_refused_mount_in_words(
    guest: Guest, smbd: SmbServer, mount: int, kernel: str, login: str, words: str
) -> None:
    before = guest.state()
    guest.write(
        "mount-says",
        f"mount error({mount}): {os.strerror(mount)}\nRefer to the mount.cifs(8) manual page\n",
    )
    guest.write("kernel-says", kernel + "\n")
    # These words are from an earlier mount.
    guest.write("dev/kmsg", "STATUS_ACCOUNT_DISABLED sign fail\n")
    user = ["--user", login] if login else []
    url = f"smb://127.0.0.1:{smbd.port}/sst/a"
    status, out, err = guest.data("add", url, *user, stdin="pw\n")
    assert (status, out) == (1, "")
    assert words in err and err.count("\n") == 1 and "--force" in err
    assert guest.state() == before


def test_force_keeps_the_credentials(guest: Guest, closed_port: int) -> None:
    url = f"smb://127.0.0.1:{closed_port}/sst"
    status, _, err = guest.data("add", url, "--user", "me", "--force", stdin="pw")
    assert status == 0 and "refuses connections" in err and "SMB server" in err
    assert guest.read(f"{CONF}sst.credentials") == "username=me\npassword=pw\n"


def test_a_failing_systemctl_undoes_the_credentials_too(guest: Guest, smbd: SmbServer) -> None:
    before = guest.state()
    guest.write("refuse-enable", "")
    url = f"smb://127.0.0.1:{smbd.port}/sst"
    assert guest.data("add", url, "--user", "me", stdin="pw")[0] == 1
    assert guest.state() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["smb://h/s", "--user"], "--user 'DOMAIN\\USER', in quotes"),
        (["smb://h/s", "--user", "me"], "the standard input is empty"),
        (["smb://h/s", "--password-file", "/etc/hostname"], "--password-file needs --user"),
        (["smb://h/s", "--user", "me", "--password-file", "/nowhere"], "cannot be read"),
        (["smb://h/s", "--user", "me", "--password-file", "/"], "cannot be read"),
        (["smb://h/s", "--user", "me", "--password-file", "/dev/null"], "is empty"),
        (["smb://h/s", "--domain", "SHIP"], "--domain needs a user"),
        (
            ["smb://h/s", "--smb-version", "1.0"],
            "'1.0' is not a version of SMB that can be used; expected one of: 3.1.1",
        ),
        (["smb://h/s", "--smb-version", "3.1.1,uid=0"], "is not a version"),
        (["smb://h/s", "--smb-version"], "--smb-version needs a value"),
        (
            ["smb://h/s", "--nfs-version", "4"],
            "--nfs-version is for NFS exports, not for SMB shares",
        ),
        (["smb://me:secret@h/s"], "do not put the password into the URL"),
        (["//me:secret@h/s"], "do not put the password into the URL"),
        (["smb://h/s", "--password=secret"], "do not type the password into the command"),
        (["smb://h/s", "--pass", "secret"], "do not type the password into the command"),
        (["nfs://h/x"], "this image (smb) has no client for nfs:// URLs; get hyrax-vm-nfs-dapdir"),
    ],
)
def test_users_mistakes(guest: Guest, arguments: list[str], words: str) -> None:
    before = guest.state()
    status, out, err = guest.data("add", *arguments)
    assert (status, out) == (2, "")
    assert words in err and err.startswith("hyrax-data: ") and err.count("\n") == 1
    assert guest.state() == before


def test_smb_options_are_not_for_nfs(guest: Guest) -> None:
    guest.pretend_access("nfs")
    status, _, err = guest.data("add", "nfs://h/x", "--user", "me")
    assert status == 2 and "--user is for SMB shares" in err


@pytest.mark.parametrize(
    ("newest", "word"),
    [("SMB2_02", "2.0.2"), ("SMB2_10", "2.1"), ("SMB3_00", "3.0"), ("SMB3_11", "3.1.1")],
)
def test_the_probe_tells_the_newest_dialect(
    guest: Guest, tmp_path: Path, newest: str, word: str
) -> None:
    (tmp_path / "export").mkdir()
    server = SmbServer(tmp_path / "export", tmp_path / "smbd", newest=newest)
    server.start()
    try:
        probe = ("usr/lib/hyrax-vm/smb-probe", "127.0.0.1", str(server.port), "5")
        assert guest.run(*probe) == (0, f"{word}\n", "")
        status, _, err = guest.data("add", f"smb://127.0.0.1:{server.port}/sst")
        assert (status == 0) == (word == "3.1.1")
        if word == "2.0.2":
            assert "2.0.2 at most, which this VM does not use; upgrade" in err
        elif status:
            assert f"speaks SMB {word} at most, not 3.1.1; upgrade it, or" in err
            assert f"--smb-version {word}. Nothing was changed" in err
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"", "none"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" + b"x" * 60, "none"),
        (b"\0\0\0\x40\xfeSMB" + bytes(4), "none"),
        (b"\0\0\0\x40\xfeSMB" + struct.pack("<HHI", 64, 0, 0xC00000BB) + bytes(80), "none"),
        (None, "silent"),
    ],
    ids=["closed", "http", "short", "refused", "silent"],
)
def test_the_probe_of_what_is_no_smb_server(
    guest: Guest, tmp_path: Path, answer: bytes | None, word: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        held = []

        def serve() -> None:
            connection, _ = listener.accept()
            held.append(connection)
            assert connection.recv(4096)[4:8] == b"\xfeSMB"
            if answer is not None:
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        deadline = "1" if answer is None else "3"
        probe = ("usr/lib/hyrax-vm/smb-probe", "127.0.0.1", str(port), deadline)
        assert guest.run(*probe) == (1, f"{word}\n", "")
        thread.join(5)
        assert held
    for connection in held:
        connection.close()


def test_folders_on_the_disk_of_a_local_image(guest: Guest) -> None:
    guest.pretend_access("local")
    nothing = "no data sets; copy one to /srv/hyrax/data/NAME\n"
    assert guest.data("status") == (0, nothing, "")
    status, out, _ = guest.data("--help")
    assert status == 0 and "scp -r FOLDER opendap@192.0.2.7:/srv/hyrax/data/" in out
    for url, other in (("nfs://h/x", "nfs"), (r"\\h\x", "smb")):
        status, _, err = guest.data("add", url)
        assert status == 2
        assert f"get hyrax-vm-{other}-dapdir1.0.0 instead, or copy the data to" in err
    guest.write("srv/hyrax/data/mine/a.nc", "x")
    guest.write("srv/hyrax/data/no name/a.nc", "x")
    status, out, err = guest.data("list")
    assert (status, out) == (0, f"{'mine':20} /srv/hyrax/data/mine\n")
    assert "the folder 'no name' is not a data set" in err
    status, out, err = guest.data("status")
    name, state, space, read, place = out.splitlines()[1].split()
    assert (status, name, state, read, place) == (0, "mine", "local", "-", "/srv/hyrax/data/mine")
    assert "/" in space
    before = guest.state()
    status, _, err = guest.data("remove", "mine")
    assert status == 2 and "is on this VM's own disk" in err and "rm -r" in err
    assert guest.state() == before
    guest.write("forbid-find", "")
    assert guest.run("usr/lib/hyrax-vm/banner")[0] == 0
    assert "data sets: mine (on this VM's own disk)\n" in guest.read("run/hyrax/issue")


@pytest.mark.parametrize("access", ["nfs", "smb", "local"])
def test_help_and_banner_fit_a_console(guest: Guest, access: str) -> None:
    guest.pretend_access(access)
    for command in ("", "add", "list", "status", "test", "remove"):
        status, out, err = guest.data(*command.split(), "--help")
        assert (status, err) == (0, "")
        assert max(map(len, out.splitlines())) <= 80 and out.count("\n") < 24
        assert guest.data("--help", *command.split()) == (0, out, "")
    assert guest.run("usr/lib/hyrax-vm/banner")[0] == 0
    assert max(map(len, guest.read("run/hyrax/issue").splitlines())) <= 80
