"""What only SMB has: signing and encryption, users and passwords, and servers of all kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.clients import netcdf4
from tests.boot.data import CASES, assert_same, local
from tests.boot.guest import Guest
from tests.boot.smb import PASSWORD, SmbServer

pytestmark = pytest.mark.access("smb")
CASE = CASES[5]


def assert_served(guest: Guest, name: str, export: Path) -> None:
    found = netcdf4(guest.url(f"data/{name}/{CASE.file}"), CASE.variable, CASE.subset)
    assert_same(found, local(export, CASE))


def test_the_data_are_signed_and_encrypted_on_their_way(
    guest: Guest, data_set: str, files: SmbServer
) -> None:
    assert_served(guest, data_set, files.export)
    (used,) = [session for session in files.sessions() if session["share"] == "data"]
    assert used["user"] == files.user
    assert used["dialect"] == "SMB3_11"
    assert used["encryption"].startswith("AES-")
    assert used["signing"].startswith("AES-")


def test_the_password_is_for_root_alone(guest: Guest, data_set: str) -> None:
    kept = f"/etc/hyrax/data.d/{data_set}.credentials"
    assert guest.check(f"stat -c '%U %a' {kept}") == "root 600"
    # The last blank is left out, because the console strips it from an answer.
    core = PASSWORD.strip()
    # It was typed on a console that echoes, and still is not in the log.
    assert core not in guest.console.log.read_text(errors="replace")
    assert core in guest.check(f"sudo -n cat {kept}")
    for command in (
        "sudo -n journalctl --no-pager",
        "ps axwwe",
        "sudo -n cat /proc/mounts",
        "cat /etc/systemd/system/srv-hyrax-data-*",
        "sudo -n find /etc /home /root /run /tmp /var -xdev -type f -size -200k"
        f" ! -path {kept} -exec cat {{}} +",
    ):
        text = guest.fetch(command, 120)
        assert len(text) > 100
        assert core.encode() not in text, command


def test_one_server_serves_a_guest_and_a_user(
    guest: Guest, data_set: str, files: SmbServer
) -> None:
    guest.check(f"hyrax-data add {files.source(share='open')} --as open", 120)
    assert_served(guest, "open", files.export)
    assert_served(guest, data_set, files.export)
    users = {session["share"]: session["user"] for session in files.sessions()}
    assert users == {"open": "nobody", "data": files.user}
    guest.check("hyrax-data remove open")
    assert guest.run("sudo -n ls /etc/hyrax/data.d/open.credentials").status == 2


def test_a_share_behind_a_dfs_root_is_served(guest: Guest, files: SmbServer) -> None:
    guest.check(f"hyrax-data add {files.source(share='dfs', folder='ocean')} --as far", 120)
    assert_served(guest, "far", files.export)
    assert "open" in {session["share"] for session in files.sessions()}
    guest.check("hyrax-data remove far")


def test_a_file_that_the_user_may_not_read_is_named(
    guest: Guest, data_set: str, files: SmbServer
) -> None:
    write_password(guest)
    said = guest.check(f"{add(files, 'hidden')} --as passing", 120)
    assert f"does not let the user '{files.user}' read 'secret.nc'" in said
    guest.check("hyrax-data remove passing")
    status, said = guest.run(f"{add(files, 'closed')} --as passing", 120)
    assert status == 1
    assert f"access denied: 10.0.2.2 does not let the user '{files.user}' read '/closed'" in said


def test_a_server_that_requires_signing_needs_a_password(
    guest: Guest, files: SmbServer, tmp_path: Path
) -> None:
    strict = SmbServer(files.export, tmp_path / "smbd", signing="mandatory")
    strict.start()
    try:
        status, said = guest.run(f"hyrax-data add {strict.source(share='open')} --as strict", 120)
        assert status == 1
        assert "requires signed connections, which a guest cannot have" in said
        write_password(guest)
        guest.check(f"{add(strict, 'data')} --as strict", 120)
        assert_served(guest, "strict", files.export)
        guest.check("hyrax-data remove strict")
    finally:
        strict.stop()


def test_an_old_server_is_refused_until_the_user_says_so(
    guest: Guest, files: SmbServer, tmp_path: Path
) -> None:
    old = SmbServer(files.export, tmp_path / "smbd", newest="SMB2_10", encrypt="off")
    old.start()
    try:
        write_password(guest)
        status, said = guest.run(f"{add(old, 'data')} --as old", 120)
        assert status == 1
        assert "speaks SMB 2.1 at most, not 3.1.1" in said
        assert "--smb-version 2.1" in said
        guest.check(f"{add(old, 'data')} --as old --smb-version 2.1", 120)
        shown = guest.check("hyrax-data status old", 120).splitlines()
        assert shown[-1] == f"    SMB 2.1, user {old.user}"
        assert_served(guest, "old", files.export)
        (used,) = old.sessions()
        assert used["dialect"] == "SMB2_10"
        assert used["signing"].startswith("HMAC-")
        guest.check("hyrax-data remove old")
    finally:
        old.stop()


def write_password(guest: Guest) -> None:
    """Write the password to a file, as octal escapes, so that the console does not show it."""
    octal = "".join(f"\\{octet:03o}" for octet in PASSWORD.encode())
    guest.check(f"(umask 077; printf '{octal}\\r\\n' >/tmp/password)")


def add(server: SmbServer, share: str) -> str:
    return (
        f"hyrax-data add {server.source(share=share)}"
        f" --user {server.user} --password-file /tmp/password"
    )
