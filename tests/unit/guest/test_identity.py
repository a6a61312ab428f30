"""A copy of the VM is recognized and gets its own identity; when in doubt, the banner asks."""

from __future__ import annotations

import pytest

from tests.unit.guest.guest_copy import Guest

UUIDS = ["4c4c4544-0000-1111-2222-333344445555", "9a9a9a9a-0000-1111-2222-333344445555"]
NO_UUIDS = [
    None,
    "00000000-0000-0000-0000-000000000000",
    "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
    "03000200-0400-0500-0006-000700080009",
]
MACS = ["52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"]
QUESTION = "identity:  is this VM a copy of another one?"


@pytest.fixture
def guest(guest: Guest) -> Guest:
    """A VM that has its identity, and no network card."""
    guest.write("etc/ssh/ssh_host_ed25519_key", "mine")
    guest.write("etc/machine-id", "a" * 32 + "\n")
    guest.write("proc/sys/kernel/random/uuid", "01234567-89ab-cdef-0123-456789abcdef\n")
    guest.write("var/lib/hyrax/.keep", "")
    return guest


def start(guest: Guest, uuid: str | None, *macs: str) -> None:
    """Boot with this UUID and network cards with these MAC addresses."""
    (guest.root / "run/hyrax/copy").unlink(missing_ok=True)
    product = guest.root / "sys/class/dmi/id/product_uuid"
    product.unlink(missing_ok=True)
    if uuid is not None:
        guest.write("sys/class/dmi/id/product_uuid", uuid + "\n")
    for number in range(len(MACS)):
        (guest.root / f"sys/class/net/eth{number}/device").mkdir(parents=True, exist_ok=True)
        if number < len(macs):
            guest.write(f"sys/class/net/eth{number}/address", macs[number] + "\n")
        else:
            (guest.root / f"sys/class/net/eth{number}/device").rmdir()
    assert guest.run("usr/lib/hyrax-vm/identity")[0] == 0


def is_new(guest: Guest) -> bool:
    """Does it have new host keys and another machine id?  Both are new, or both are as before."""
    keys = [guest.root / f"etc/ssh/ssh_host_{kind}_key" for kind in ("ed25519", "ecdsa")]
    if "PRIVATE KEY" in keys[0].read_text():
        assert "PRIVATE KEY" in keys[1].read_text()
        assert guest.read("etc/machine-id") == "0123456789abcdef0123456789abcdef\n"
        return True
    assert keys[0].read_text() == "mine"
    assert guest.read("etc/machine-id") == "a" * 32 + "\n"
    return False


def asks(guest: Guest) -> bool:
    assert guest.run("usr/lib/hyrax-vm/banner")[0] == 0
    return QUESTION in guest.read("run/hyrax/issue")


def test_a_copy_gets_host_keys_and_a_machine_id_of_its_own(guest: Guest) -> None:
    for same in (UUIDS[0], UUIDS[0], "00000000-0000-0000-0000-000000000000"):
        start(guest, same)
        assert not is_new(guest)
    # With a full disk the copy keeps the keys that it has, and tries again at its next start.
    guest.stand_in("ssh-keygen", "exit 1")
    guest.write("sys/class/dmi/id/product_uuid", UUIDS[1] + "\n")
    assert guest.run("usr/lib/hyrax-vm/identity")[0] == 1
    assert guest.read("etc/ssh/ssh_host_ed25519_key") == "mine"
    (guest.bin / "ssh-keygen").unlink()
    start(guest, UUIDS[1])
    assert is_new(guest)
    assert not asks(guest)


def test_the_uuid_counts_more_than_the_cards(guest: Guest) -> None:
    start(guest, UUIDS[0], MACS[0])
    # It was moved, or got another card.
    start(guest, UUIDS[0], MACS[1])
    assert not is_new(guest) and not asks(guest)
    # The hypervisor has copied it, with its MAC address.
    start(guest, UUIDS[1], MACS[1])
    assert is_new(guest) and not asks(guest)


@pytest.mark.parametrize("uuid", NO_UUIDS)
def test_without_a_uuid_the_administrator_says_that_it_is_a_copy(
    guest: Guest, uuid: str | None
) -> None:
    start(guest, uuid, MACS[0])
    start(guest, uuid, MACS[0])
    assert not asks(guest)
    for _ in range(2):  # as long as nobody has answered
        start(guest, uuid, MACS[1])
        assert asks(guest) and not is_new(guest)
    # The first machine goes on as before.
    start(guest, uuid, MACS[0])
    assert not asks(guest)

    start(guest, uuid, MACS[1])
    status, out, _ = guest.run("usr/lib/hyrax-vm/identity", "new")
    assert (status, out) == (
        0,
        "new SSH host keys and machine id; to use them, type: sudo reboot\n",
    )
    assert is_new(guest)
    assert QUESTION not in guest.read("run/hyrax/issue")
    start(guest, uuid, MACS[1])
    assert not asks(guest)


def test_without_a_uuid_the_administrator_says_that_only_the_card_is_new(guest: Guest) -> None:
    start(guest, None, MACS[0])
    start(guest, None, MACS[1])
    assert asks(guest)
    assert guest.run("usr/lib/hyrax-vm/identity", "same") == (0, "", "")
    assert QUESTION not in guest.read("run/hyrax/issue")
    start(guest, None, MACS[1])
    assert not asks(guest) and not is_new(guest)


def test_one_card_of_several_may_change(guest: Guest) -> None:
    start(guest, None, MACS[0])
    for cards in ((MACS[1], MACS[0]), (MACS[1], MACS[2]), (MACS[2],)):
        start(guest, None, *cards)
        assert not asks(guest)
    # Without any card there is nothing to compare; the next one that comes is compared again.
    start(guest, None)
    assert not asks(guest)
    start(guest, None, MACS[0])
    assert asks(guest) and not is_new(guest)


def test_another_hypervisor_that_gives_a_uuid_is_asked_about_too(guest: Guest) -> None:
    start(guest, None, MACS[0])
    start(guest, UUIDS[0], MACS[1])
    assert asks(guest) and not is_new(guest)
    assert guest.run("usr/lib/hyrax-vm/identity", "same")[0] == 0
    start(guest, UUIDS[0], MACS[2])
    assert not asks(guest) and not is_new(guest)


def test_an_unknown_word_is_refused(guest: Guest) -> None:
    assert guest.run("usr/lib/hyrax-vm/identity", "old") == (
        2,
        "",
        "identity: 'old' is unknown; expected: new (this VM is a copy) or same (it is not)\n",
    )
