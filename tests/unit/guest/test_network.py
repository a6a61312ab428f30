"""hyrax-network: what it writes, what it refuses, and what it says."""

from __future__ import annotations

import json
import os
import time

import pytest

from tests.unit.guest.guest_copy import Guest, edit

WAIT = "usr/lib/hyrax-vm/network-wait.sh"
FILE = "etc/systemd/network/40-hyrax-eth0.network"
PATIENCE = 2  # seconds that the command waits for an address here: a test waits as long
# The stand-in of networkctl sets the address in the file, or DHCP's; the file `conflict` has an
# address that another machine has. A wait looks more often than on a real machine.
STAND_INS = {
    "sleep": "exec /bin/sleep 0.1",
    "networkctl": r"""
[ "$1" = reconfigure ] || exit 0
file=$HYRAX_ROOT/etc/systemd/network/40-hyrax-$2.network
address=$(sed -n 's/^Address=//p' "$file" 2>/dev/null)
[ -n "$address" ] || address=$(cat "$HYRAX_ROOT/dhcp" 2>/dev/null)
: >"$HYRAX_ROOT/addresses"
[ -z "$address" ] || grep -q -s -x "$address" "$HYRAX_ROOT/conflict" ||
    echo "2: $2    inet $address scope global $2" >"$HYRAX_ROOT/addresses" """,
    "ip": r"""
case "$*" in
*addr*) cat "$HYRAX_ROOT/addresses" ;;
-4\ route*) [ ! -e "$HYRAX_ROOT/six" ] || exit 0
    file=$HYRAX_ROOT/etc/systemd/network/40-hyrax-eth0.network
    gateway=$(sed -n 's/^Gateway=//p' "$file" 2>/dev/null)
    echo "default via ${gateway:-192.0.2.1} dev eth0" ;;
-6\ route*) echo "default via fe80::2 dev eth0 proto ra metric 1024" ;;
neigh*) [ ! -e "$HYRAX_ROOT/silent" ] && echo "lladdr 02:00:00:00:00:01 REACHABLE" ;;
esac""",
    "ping": "exit 1",
    "hostname": "",
    "resolvectl": "echo 'Link 2 (eth0): 192.0.2.53'",
}


@pytest.fixture
def vm(guest: Guest) -> Guest:
    for name, body in STAND_INS.items():
        guest.stand_in(name, body)
    guest.answer_for("is-active*networkd", "active")
    edit(guest.root / WAIT, "PATIENCE=20\n", f"PATIENCE={PATIENCE}\n")
    device = guest.root / "sys/class/net/eth0/device"
    device.mkdir(parents=True)
    (device / "driver").symlink_to("../../../../bus/pci/drivers/vmxnet3")
    guest.write("sys/class/net/eth0/address", "00:0c:29:00:00:01\n")
    guest.write("sys/class/net/eth0/carrier", "1\n")
    guest.write("dhcp", "192.0.2.7/24")
    return guest


def network(guest: Guest, *arguments: str) -> tuple[int, str, str]:
    return guest.run("usr/bin/hyrax-network", *arguments)


def values(guest: Guest, key: str) -> list[str]:
    lines = guest.read(FILE).splitlines()
    return [line.removeprefix(f"{key}=") for line in lines if line.startswith(f"{key}=")]


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("192.0.2.20/24", "192.0.2.20/24"),
        ("192.0.2.20/255.255.255.0", "192.0.2.20/24"),
        ("192.0.2.20/255.255.255.128", "192.0.2.20/25"),
        ("198.51.100.1/31", "198.51.100.1/31"),
    ],
)
def test_a_static_address_is_kept_and_said(vm: Guest, typed: str, address: str) -> None:
    status, out, err = network(vm, "static", typed)
    assert (status, err) == (0, "")
    plain = address.partition("/")[0]
    assert out == f"eth0 has the address {plain}; to undo this, type: hyrax-network dhcp\n"
    assert values(vm, "Address") == [address]
    assert values(vm, "Name") == ["eth0"]
    assert not values(vm, "DHCP")
    assert "networkctl reconfigure eth0" in vm.read("calls.log")


def test_gateway_and_name_servers(vm: Guest) -> None:
    assert (
        network(
            vm, "static", "192.0.2.20/24", "--gateway=192.0.2.1", "--dns", "192.0.2.2,192.0.2.3"
        )[0]
        == 0
    )
    assert values(vm, "Gateway") == ["192.0.2.1"]
    assert values(vm, "DNS") == ["192.0.2.2", "192.0.2.3"]
    # Changing the name servers keeps the address, and the reverse.
    assert network(vm, "dns", "192.0.2.4")[0] == 0
    assert (values(vm, "Address"), values(vm, "DNS")) == (["192.0.2.20/24"], ["192.0.2.4"])
    assert network(vm, "static", "192.0.2.21/24", "--gateway", "192.0.2.1")[0] == 0
    assert values(vm, "DNS") == ["192.0.2.4"]


def test_the_gateway_is_the_name_server_where_none_is_named(vm: Guest) -> None:
    network(vm, "static", "192.0.2.20/24", "--gateway", "192.0.2.1")
    assert values(vm, "DNS") == ["192.0.2.1"]


def test_dhcp_with_name_servers_of_ones_own_and_back_to_what_was_shipped(vm: Guest) -> None:
    assert network(vm, "dns", "192.0.2.4") == (0, "name servers: 192.0.2.4\n", "")
    assert values(vm, "DHCP") == ["ipv4"]
    assert (values(vm, "UseDNS"), values(vm, "ClientIdentifier")) == (["no"], ["mac"])
    status, out, _ = network(vm, "dhcp")
    assert (status, out) == (0, "eth0 has the address 192.0.2.7 from DHCP\n")
    assert not (vm.root / FILE).exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("static",), "static needs an address; for example: hyrax-network static"),
        (("static", "192.0.2.20"), "'192.0.2.20' needs the length of its network's prefix"),
        (("static", "192.0.2.20/0"), "'/0' is not a prefix's length (1 to 32)"),
        (("static", "192.0.2.20/x"), "'/x' is not a prefix's length (1 to 32)"),
        (("static", "192.0.2.20/255.0.255.0"), "'255.0.255.0' is not a netmask"),
        (("static", "192.0.2.0/24"), "'192.0.2.0' is the network itself"),
        (("static", "192.0.2.255/24"), "'192.0.2.255' is the broadcast address of 192.0.2.0/24"),
        (("static", "127.0.0.2/8"), "'127.0.0.2' cannot be the address of a machine"),
        (("static", "224.0.0.1/24"), "'224.0.0.1' cannot be the address of a machine"),
        (("static", "192.0.02.1/24"), "'192.0.02.1' has a number with a leading zero"),
        (("static", "a.b.c.d/24"), "'a.b.c.d' is not an IP address"),
        (("static", "fe80::1/64"), "'fe80::1' cannot be the address of a machine"),
        (("static", "192.0.2.20/24", "--gateway", "192.0.2.20"), "is this VM's own address"),
        (("static", "192.0.2.20/24", "--gateway", "192.0.3.1"), "is not in the network of"),
        (("static", "192.0.2.20/24", "--gateway", "fd00::1"), "are not of the same kind"),
        (("static", "192.0.2.20/24", "--gateway"), "--gateway needs a value"),
        (("static", "192.0.2.20/24", "--dns", "x"), "'x' is not an IP address"),
        (("static", "192.0.2.20/24\nGateway=1.1.1.1"), "'24?Gateway=1.1.1.1' is not an IP address"),
        (("static", "192.0.2.20/24", "--speed", "1"), "'--speed' is not an option of static"),
        (("static", "192.0.2.20/24", "192.0.2.1"), "static takes one value; '192.0.2.1'"),
        (("static", "192.0.2.20/24", "--link", "eth7"), "'eth7' is not a network adapter"),
        (("dhcp", "now"), "dhcp takes no value"),
        (("dns",), "dns needs an address"),
        (("hostname",), "hostname needs a name"),
        (("hostname", "a_b"), "'a_b' cannot be a host name"),
        (("hostname", "-a"), "'-a' is not an option of hostname"),
        (("hostname", "1.2.3.4"), "'1.2.3.4' cannot be a host name"),
        (("hostname", "a" * 65), "cannot be a host name"),
        (("hostname", "a\nb"), "'a?b' cannot be a host name"),
        (("up",), "'up' is not a command; see: hyrax-network --help"),
    ],
)
def test_what_cannot_be_right_changes_nothing(
    vm: Guest, arguments: tuple[str, ...], told: str
) -> None:
    before = vm.state()
    status, out, err = network(vm, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("hyrax-network: ")
    assert told in err
    assert err.count("\n") == 1
    assert vm.state() == before
    assert "networkctl" not in vm.read("calls.log")


def test_an_address_that_is_not_free_is_said_with_the_way_back(vm: Guest) -> None:
    vm.write("conflict", "192.0.2.9/24\n")
    status, out, err = network(vm, "static", "192.0.2.9/24")
    assert (status, out) == (1, "")
    assert err == (
        "hyrax-network: 192.0.2.9/24 is not free on eth0. The setting is kept; "
        "to undo it, type: hyrax-network dhcp\n"
    )
    banner = vm.read("run/hyrax/issue")
    assert "address:   none: 192.0.2.9/24 is not free on eth0\n" in banner
    assert "(to ask DHCP instead: hyrax-network dhcp --link eth0)" in banner
    assert vm.read("run/hyrax/not-free.eth0") == "192.0.2.9/24\n"
    (vm.root / "conflict").unlink()
    assert network(vm, "static", "192.0.2.9/24")[0] == 0
    assert not (vm.root / "run/hyrax/not-free.eth0").exists()


def test_an_address_is_being_checked_until_the_probe_time_is_over(vm: Guest) -> None:
    """As after a boot, and when somebody has plugged in the cable: no command has waited."""
    vm.write(FILE, "[Address]\nAddress=192.0.2.9/24\n")
    vm.write("addresses", "")
    vm.write("sys/class/net/eth0/ifindex", "2\n")
    vm.write("run/systemd/netif/links/2", "ADMIN_STATE=configuring\n")
    state = vm.root / "run/systemd/netif/links/2"
    checking = "checking whether 192.0.2.9/24 is free on eth0; this takes 10 seconds"
    for age, said in ((0, checking), (7, checking), (60, "192.0.2.9/24 is not free on eth0")):
        then = time.time() - age
        os.utime(state, (then, then))
        status, out, _ = network(vm, "status")
        assert (status, out.splitlines()[-1].strip()) == (1, said)
        assert json.loads(network(vm, "--json")[1])["links"][0]["problem"] == said
        vm.run("usr/lib/hyrax-vm/banner")
        assert f"address:   none: {said}\n" in vm.read("run/hyrax/issue")
    # A clock that was set back an hour.
    os.utime(state, (time.time() + 3600, time.time() + 3600))
    assert "is not free on eth0" in network(vm)[1]


def test_an_address_for_which_a_command_has_waited_is_not_being_checked(vm: Guest) -> None:
    """systemd-networkd 252 crashes over it, and begins again."""
    vm.write(FILE, "[Address]\nAddress=192.0.2.9/24\n")
    vm.write("addresses", "")
    vm.write("run/hyrax/not-free.eth0", "192.0.2.9/24\n")
    vm.write("sys/class/net/eth0/ifindex", "2\n")
    vm.write("run/systemd/netif/links/2", "ADMIN_STATE=configuring\n")
    assert "192.0.2.9/24 is not free on eth0" in network(vm)[1]
    # Another one is checked.
    vm.write(FILE, "[Address]\nAddress=192.0.2.10/24\n")
    assert "checking whether 192.0.2.10/24 is free" in network(vm)[1]


def test_a_gateway_that_does_not_answer_is_said(vm: Guest) -> None:
    vm.write("silent", "")
    status, _, err = network(vm, "static", "192.0.2.9/24", "--gateway", "192.0.2.1")
    assert status == 1
    assert "the gateway 192.0.2.1 does not answer. The setting is kept" in err


def test_no_answer_to_dhcp_is_said(vm: Guest) -> None:
    vm.write("dhcp", "")
    status, _, err = network(vm, "dhcp")
    assert (status, err) == (
        1,
        "hyrax-network: no answer to DHCP on eth0; this VM keeps asking\n",
    )


def test_the_host_name_is_everywhere(vm: Guest) -> None:
    assert network(vm, "hostname", "dap1.example.org")[0] == 0
    assert vm.read("etc/hostname") == "dap1.example.org\n"
    assert "127.0.1.1\tdap1.example.org dap1\n" in vm.read("etc/hosts")
    assert "127.0.0.1\tlocalhost\n" in vm.read("etc/hosts")
    assert "networkctl renew eth0" in vm.read("calls.log")


def test_what_cannot_be_written_is_not_said_to_be_done(vm: Guest) -> None:
    (vm.root / "etc/hostname.new").mkdir()
    before = vm.read("etc/hosts")
    status, out, err = network(vm, "hostname", "dap1")
    assert (status, out) == (1, "")
    assert err.count("cannot be written; is the disk full?") == 1
    assert vm.read("etc/hosts") == before
    (vm.root / f"{FILE}.new").mkdir(parents=True)
    status, out, err = network(vm, "static", "192.0.2.20/24")
    assert (status, out) == (1, "")
    assert err.count("cannot be written") == 1


def test_a_networkd_that_has_crashed_over_it_is_waited_for(vm: Guest) -> None:
    vm.answer_for("is-active*networkd", "activating")
    edit(vm.root / WAIT, "PATIENCE_IN_ALL=90", "PATIENCE_IN_ALL=5")
    once = '[ -e "$HYRAX_ROOT/crashed" ] || { : >"$HYRAX_ROOT/crashed"; exit 1; }'
    vm.stand_in("networkctl", once)
    vm.write("addresses", "")
    status, out, err = network(vm, "static", "192.0.2.20/24")
    assert (status, out) == (1, "")
    assert "is not free on eth0. The setting is kept" in err


def test_the_time_counts_from_the_start_of_networkd(vm: Guest) -> None:
    """As after a crash: systemd starts it while the command waits for the address."""
    vm.write("dhcp", "")
    ready = time.clock_gettime(time.CLOCK_MONOTONIC) + PATIENCE
    shown = "show---property=ActiveEnterTimestampMonotonic"
    vm.write(shown, f"{round(ready * 1e6)}\n")
    with vm.popen("usr/bin/hyrax-network", "dhcp") as command:
        time.sleep(PATIENCE + 1)
        assert command.poll() is None
        vm.write("addresses", "2: eth0    inet 192.0.2.7/24 scope global eth0\n")
        out, err = command.communicate(timeout=PATIENCE * 10)
    assert (out, err) == ("eth0 has the address 192.0.2.7 from DHCP\n", "")


def test_status(vm: Guest) -> None:
    status, out, _ = network(vm)
    assert status == 0
    assert out == (
        "hostname: hyrax-vm\n"
        "eth0: connected, vmxnet3, 00:0c:29:00:00:01, dhcp\n"
        "  address: 192.0.2.7\n  gateway: 192.0.2.1\n  name servers: 192.0.2.53\n"
    )
    vm.write("sys/class/net/eth0/carrier", "0\n")
    vm.write("addresses", "")
    status, out, _ = network(vm, "status")
    assert status == 1
    assert "eth0: not connected" in out
    assert "the network adapter eth0 is not connected" in out


def test_status_as_json(vm: Guest) -> None:
    link = {
        "name": "eth0",
        "connected": True,
        "driver": "vmxnet3",
        "mac": "00:0c:29:00:00:01",
        "method": "dhcp",
        "addresses": ["192.0.2.7"],
        "gateway": "192.0.2.1",
        "name_servers": ["192.0.2.53"],
        "problem": None,
    }
    status, out, _ = network(vm, "--json")
    assert (status, json.loads(out)) == (0, {"hostname": "hyrax-vm", "links": [link]})
    vm.write("silent", "")
    status, out, _ = network(vm, "status", "--json")
    link["problem"] = "the gateway 192.0.2.1 does not answer"
    assert (status, json.loads(out)["links"]) == (1, [link])


def test_the_gateway_of_a_network_that_has_ipv6_only(vm: Guest) -> None:
    vm.write("six", "")
    vm.write("addresses", "2: eth0    inet6 2001:db8::7/64 scope global eth0\n")
    status, out, _ = network(vm)
    assert status == 0
    assert "\n  address: 2001:db8::7\n  gateway: fe80::2\n" in out


def test_a_machine_without_an_adapter(vm: Guest) -> None:
    (vm.root / "sys/class/net/eth0").rename(vm.root / "gone")
    vm.write("addresses", "")
    assert network(vm)[0:2] == (1, "hostname: hyrax-vm\nthis VM has no network adapter\n")
    assert json.loads(network(vm, "--json")[1])["links"] == []
