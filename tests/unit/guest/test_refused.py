"""Commands that `hyrax-data` refuses before it touches anything, in the images for each access."""

from __future__ import annotations

import pytest

from tests.unit.guest.guest_copy import Guest

COMMANDS = [
    *[
        (access, command, said)
        for access in ("nfs", "smb", "local")
        for command, said in (
            ("add ftp://10.0.2.2/data", "not an nfs:// or smb:// URL"),
            ("add", "add needs a URL"),
            ("remove nobody", "no data set is called 'nobody'"),
        )
    ],
    ("nfs", "add nfs://10.0.2.2/data --as ../x", "cannot be a name"),
    ("nfs", "add //10.0.2.2/x", "get hyrax-vm-smb-dapdir1.0.0"),
    ("nfs", "add nfs://10.0.2.2/x --nfs-version 3", "'3' is not a version"),
    ("nfs", "add nfs://10.0.2.2/x --options suid", "'suid' cannot be used"),
    ("smb", "add nfs://10.0.2.2/x", "get hyrax-vm-nfs-dapdir1.0.0"),
    ("smb", "add smb://a:b@10.0.2.2/x", "do not put the password into the URL"),
    ("smb", "add //10.0.2.2/x --user me", "standard input is empty"),
    ("smb", "add //10.0.2.2/x --smb-version 1.0", "'1.0' is not a version"),
    ("smb", "add //10.0.2.2/x --options uid=0", "'uid=0' cannot be used"),
    ("local", "add nfs://10.0.2.2/x", "get hyrax-vm-nfs-dapdir1.0.0"),
    ("local", "add //10.0.2.2/x", "get hyrax-vm-smb-dapdir1.0.0"),
    ("local", "remove mine", "is on this VM's own disk"),
]


@pytest.mark.parametrize(("access", "command", "said"), COMMANDS)
def test_a_wrong_command_is_refused_with_status_2(
    guest: Guest, access: str, command: str, said: str
) -> None:
    guest.pretend_access(access)
    guest.write("srv/hyrax/data/mine/a.nc", "x")
    before = guest.state()
    status, out, err = guest.data(*command.split())
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert said in err
    assert guest.state() == before
