"""A copy of the VM is recognized, and gets its own identity."""

from __future__ import annotations

from tests.unit.guest.guest_copy import Guest

UUIDS = ["4c4c4544-0000-1111-2222-333344445555", "9a9a9a9a-0000-1111-2222-333344445555"]


def test_a_copy_gets_host_keys_and_a_machine_id_of_its_own(guest: Guest) -> None:
    def start(uuid: str) -> None:
        guest.write("sys/class/dmi/id/product_uuid", uuid + "\n")
        guest.write("proc/sys/kernel/random/uuid", "01234567-89ab-cdef-0123-456789abcdef\n")
        assert guest.run("usr/lib/hyrax-vm/identity")[0] == 0

    guest.write("etc/ssh/ssh_host_ed25519_key", "mine")
    guest.write("etc/machine-id", "a" * 32 + "\n")
    guest.write("var/lib/hyrax/.keep", "")
    for same in (UUIDS[0], UUIDS[0], "00000000-0000-0000-0000-000000000000"):
        start(same)
        assert guest.read("etc/ssh/ssh_host_ed25519_key") == "mine"
        assert guest.read("etc/machine-id") == "a" * 32 + "\n"
    # With a full disk the copy keeps the keys that it has, and tries again at its next start.
    guest.stand_in("ssh-keygen", "exit 1")
    guest.write("sys/class/dmi/id/product_uuid", UUIDS[1] + "\n")
    assert guest.run("usr/lib/hyrax-vm/identity")[0] == 1
    assert guest.read("etc/ssh/ssh_host_ed25519_key") == "mine"
    (guest.bin / "ssh-keygen").unlink()
    start(UUIDS[1])
    for kind in ("ed25519", "ecdsa"):
        assert "PRIVATE KEY" in guest.read(f"etc/ssh/ssh_host_{kind}_key")
    assert guest.read("etc/machine-id") == "0123456789abcdef0123456789abcdef\n"
