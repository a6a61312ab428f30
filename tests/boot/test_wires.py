"""Other network cards, other networks, settings for the first boot, and a copy of the VM.

The machine `wires` is powered on three times with the same disk:
  1  with a settings disk, one network card, and a network without a DHCP server at first
  2  as a copy: another UUID, another card with another MAC in another slot, and a cidata disk
  3  with three cards, the disk on a controller that Proxmox and libvirt give to imported ones,
     other settings from fw_cfg, and a socket to QEMU's guest agent
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hyraxvm.tools.settings_disk import write_disk
from hyraxvm.vm.console import LOGIN_PROMPT
from hyraxvm.vm.qemu import HTTP, SSH
from tests.boot.clients import netcdf4
from tests.boot.data import CASES, Case, assert_same, local
from tests.boot.fileserver import FileServer
from tests.boot.guest import BOOT, Artifact, Guest
from tests.boot.machines import RecordProperty, booted
from tests.boot.watching import until

pytestmark = [pytest.mark.machines("wires"), pytest.mark.usefixtures("power")]
PASSWORD = "Sailing-Ships-3-Across"
FIRST, COPY = "4d3c2b1a-0000-4000-8000-000000000001", "4d3c2b1a-0000-4000-8000-000000000002"
STATIC = "10.0.2.40"
# QEMU's own IPv6 network has site-local addresses, which nobody uses any more (RFC 3879).
SIX_HOST = "fd00:6::2"
SIX = f"ipv6-net=fd00:6::/64,ipv6-host={SIX_HOST},ipv6-dns=fd00:6::3"
Power = Callable[..., AbstractContextManager[Guest]]


@pytest.fixture(scope="module")
def power(artifact: Artifact, scratch: Path) -> Power:
    """Return a function that boots the disk of `wires`; all its cards are in the arguments."""
    disk = artifact.spec.with_overlays(scratch / "wires")
    own = disk.drives[0].controller
    runs: list[Path] = []

    @contextmanager
    def boot(*extra: str, password: str, controller: str = own) -> Iterator[Guest]:
        logs = artifact.reports / f"wires-{len(runs) + 1}"
        runs.append(logs)
        drives = (replace(disk.drives[0], controller=controller), *disk.drives[1:])
        # With both CPUs: it is the last machine, which runs beside `six` for a minute, then alone.
        spec = replace(disk, nics=(), extra=extra, drives=drives)
        with booted(spec, scratch / logs.name, logs) as guest:
            guest.password = password
            yield guest
            if guest.machine.running:
                guest.machine.powerdown(120)

    return boot


@pytest.fixture(scope="module")
def key(scratch: Path) -> Path:
    new_key(scratch / "wires-key", "wires")
    return scratch / "wires-key"


def new_key(path: Path, comment: str) -> Path:
    """Make a key of SSH; return the path of its public part."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(command, check=True)
    return path.with_suffix(".pub")


def card(model: str, network: str, mac: str, slot: str = "") -> list[str]:
    device = f"{model},id=card-{network},netdev={network},mac={mac},romfile="
    return ["-device", device + (slot and f",addr={slot}")]


def forwarding(address: str = "") -> str:
    return ",".join(f"hostfwd=tcp:127.0.0.1:0-{address}:{port}" for port in (HTTP, SSH))


def banner(guest: Guest, wanted: str, seconds: float) -> str:
    """Wait until the banner contains `wanted`; return the banner."""
    deadline = time.monotonic() + seconds
    while wanted not in (shown := guest.check("cat /run/hyrax/issue")):
        assert time.monotonic() < deadline, shown
        time.sleep(1)
    return shown


def test_settings_apply_without_a_network_and_dhcp_may_be_late(
    power: Power, files: FileServer, key: Path, tmp_path: Path, record_property: RecordProperty
) -> None:
    file = tmp_path / "hyrax.toml"
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"],
        input=PASSWORD,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    file.write_text(f"""\
[vm]
hostname = "wires"
password_hash = '{hashed}'
ssh_keys = ["{key.with_suffix(".pub").read_text().strip()}"]

[network]
address = "10.0.2.300/24"

[[data]]
url = "{files.source("ocean")}"
name = "ocean"
""")
    write_disk(file, tmp_path / "settings.iso")
    with power(
        *("-uuid", FIRST),
        *(
            "-netdev",
            "hubport,id=port,hubid=0",
            *card("e1000e", "port", "52:54:00:00:00:01"),
        ),
        *cd(tmp_path / "settings.iso"),
        password=PASSWORD,
    ) as guest:
        # Above the login prompt, before anybody has logged in.
        shown = guest.console.expect(
            r"address:   none: no answer to DHCP on eth0\r\n[\s\S]*?(?=wires login: )", BOOT
        )
        assert (
            "settings:  the settings disk: line 7: address: '10.0.2.300' is not an IP add" in shown
        )
        assert "log in as: opendap " in shown and "opendap / opendap" not in shown
        assert "ocean" in shown
        assert (
            guest.check("hostname; cat /sys/class/net/eth0/address") == "wires\n52:54:00:00:00:01"
        )
        assert guest.run("hyrax-network").status == 1
        assert "no answer to DHCP on eth0" in guest.run("hyrax-network").output

        # A DHCP server is connected.
        plugged = time.monotonic()
        forwards = [{"str": f"tcp:127.0.0.1:0-:{port}"} for port in (HTTP, SSH)]
        guest.machine.qmp("netdev_add", type="user", id="net", hostfwd=forwards)
        guest.machine.qmp("netdev_add", type="hubport", id="uplink", hubid=0, netdev="net")
        guest.machine.find_ports()
        guest.wait_ready(150)
        record_property(
            "seconds from a DHCP server's arrival to an answer", round(time.monotonic() - plugged)
        )
        assert "http://10.0.2.15:8080/opendap/" in banner(guest, "10.0.2.15", 30)

        assert_same(
            netcdf4(guest.url(f"data/ocean/{CASES[0].file}"), CASES[0].variable, None),
            local(files.export, CASES[0]),
        )
        argv = ["ssh", "-p", str(guest.machine.ports[SSH]), "-i", str(key), "-F", "/dev/null"]
        argv += [
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
        ]
        done = subprocess.run(
            [*argv, "opendap@127.0.0.1", "hostname"], capture_output=True, text=True, timeout=60
        )
        assert done.stdout == "wires\n", done.stderr

        # Set a fixed address, which the next boot has too.
        said = guest.check(f"hyrax-network static {STATIC}/24 --gateway 10.0.2.2", 90)
        assert said == f"eth0 has the address {STATIC}; to undo this, type: hyrax-network dhcp"
        guest.check(
            "sudo -n cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub | tee ~/identity"
        )
        guest.check(
            "mkdir /srv/hyrax/data/mine && cp /srv/hyrax/sample/sst.nc /srv/hyrax/data/mine"
        )


def cd(path: Path) -> list[str]:
    """Return QEMU's arguments for a CD with this file."""
    file = f"raw,node-name=cd,read-only=on,file.driver=file,file.filename={path}"
    return ["-blockdev", file, "-device", "ide-cd,drive=cd"]


def cidata(folder: Path, **files: str) -> Path:
    """Write a disk of NoCloud, as Proxmox does it."""
    for name, text in files.items():
        (folder / name.replace("_", "-")).write_text(text)
    made = folder / "cidata.iso"
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-V", "cidata", "-J", "-r", "-o", str(made)]
    names = [f"{name}={folder / name}" for name in (each.replace("_", "-") for each in files)]
    subprocess.run([*command, "-graft-points", *names], check=True)
    return made


def test_a_copy_serves_its_data_keeps_its_address_and_gets_its_own_identity(
    power: Power,
    files: FileServer,
    samples: Path,
    tmp_path: Path,
    record_property: RecordProperty,
) -> None:
    other = new_key(tmp_path / "other", "from-cidata").read_text()
    user_data = f"#cloud-config\nssh_authorized_keys:\n  - {other}"
    disk = cidata(tmp_path, meta_data="local-hostname: wires\n", user_data=user_data)
    with power(
        *("-uuid", COPY),
        *cd(disk),
        *("-device", "i6300esb"),
        *("-netdev", f"user,id=net,{forwarding(STATIC)}"),
        *card("vmxnet3", "net", "00:0c:29:00:00:02", "0x1a"),
        password=PASSWORD,
    ) as guest:
        guest.wait_ready()
        # The data sets of the boot before are served: on the file server, and on the own disk.  A
        # host that runs several machines may need longer than a reader waits for the first mount.
        until(guest, "/opendap/data/ocean/classic.nc.dds", 200, 120)
        for case in (CASES[0], CASES[5]):
            url = guest.url(f"data/ocean/{case.file}")
            assert_same(netcdf4(url, case.variable, case.subset), local(files.export, case))
        took = time.monotonic() - guest.machine.started
        record_property("seconds from power-on to the values of a data set", round(took, 1))
        for folder in ("data/mine", "sample"):
            found = netcdf4(guest.url(f"{folder}/sst.nc"), "sst", None)
            assert_same(found, local(samples, Case("sst.nc", "sst")))
        assert guest.check("systemctl --failed --no-legend --plain") == ""
        assert (
            guest.check("hostname; cat /sys/class/net/eth0/address") == "wires\n00:0c:29:00:00:02"
        )
        assert guest.check("ip -4 -o addr show eth0 | awk '{print $4}'") == f"{STATIC}/24"
        before = guest.check("cat ~/identity").split()
        after = guest.check("sudo -n cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub").split()
        assert len(before[0]) == len(after[0]) == 32
        assert before[0] != after[0]
        assert before[2] != after[2]
        # systemd has opened the hypervisor's watchdog.
        assert guest.check("cat /sys/class/watchdog/watchdog0/state") == "active"
        keys = guest.check("hyrax-setup ssh-key list").splitlines()
        assert [line.split()[2] for line in keys] == ["wires", "from-cidata"]
        # The password and the data set belong to the owner, and stay.
        assert guest.check("hyrax-data list").split()[0] == "ocean"

        # Try an address that is taken, then a gateway that does not answer; go back to DHCP.
        taken = guest.run("hyrax-network static 10.0.2.3/24 --gateway 10.0.2.2", 90)
        assert taken.status == 1
        assert "10.0.2.3/24 is not free on eth0" in taken.output
        assert "hyrax-network dhcp" in banner(guest, "10.0.2.3/24 is not free", 30)
        wrong = guest.run("hyrax-network static 10.9.9.9/24 --gateway 10.9.9.1", 90)
        assert wrong.status == 1
        assert "the gateway 10.9.9.1 does not answer" in wrong.output
        assert guest.check("hyrax-network dhcp", 90) == "eth0 has the address 10.0.2.15 from DHCP"


def ask_agent(path: Path, command: str, **arguments: str) -> object:
    """Ask QEMU's guest agent, as virsh and Proxmox do; return its answer, None if it gives none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        question = {"execute": command, "arguments": arguments}
        connection.sendall(json.dumps(question).encode() + b"\n")
        answer = (
            connection.makefile().readline() if command != "guest-shutdown" else '{"return": 0}'
        )
        return json.loads(answer)["return"]


def test_several_cards_use_dhcp_and_changed_settings_apply(power: Power, tmp_path: Path) -> None:
    models = ("virtio-net-pci", "e1000", "e1000e")
    extra: list[str] = []
    for number, model in enumerate(models):
        net = f"user,id=net{number},net=10.0.{number + 2}.0/24,{SIX if number == 1 else 'ipv6=off'}"
        extra += ["-netdev", net, *card(model, f"net{number}", f"52:54:00:00:00:1{number}")]
    agent = tmp_path / "agent"
    extra += ["-chardev", f"socket,id=agent,path={agent},server=on,wait=off"]
    extra += ["-device", "virtio-serial"]
    extra += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
    settings = '[vm]\nhostname = "three"\n[server]\ncolor = "red"\n'
    with power(
        *("-uuid", COPY),
        *("-fw_cfg", f"name=opt/org.opendap.hyrax/settings,string={settings.replace(',', ',,')}"),
        *extra,
        password=PASSWORD,
        controller="lsi53c895a",
    ) as guest:
        guest.console.expect(rf"(?={LOGIN_PROMPT})", BOOT)
        deadline = time.monotonic() + 60
        while (found := addresses(guest)).keys() != {f"10.0.{n + 2}.15" for n in range(3)}:
            assert time.monotonic() < deadline, found
            time.sleep(1)
        assert sorted(found.values()) == ["eth0", "eth1", "eth2"]
        shown = banner(guest, "10.0.4.15", 60)
        assert "settings:  fw_cfg: line 4: color: 'color' is not a setting" in shown
        assert guest.check("hostname") == "three"

        # One of them has IPv6 too.
        links = json.loads(guest.check("hyrax-network status --json"))["links"]
        (both,) = [each["addresses"] for each in links if each["addresses"][0] == "10.0.3.15"]
        assert both[1].startswith("fd00:6:")

        # A cable is pulled and put back.  (With QEMU's e1000e the guest would not notice.)
        guest.machine.qmp("set_link", name="card-net0", up=False)
        deadline = time.monotonic() + 60
        while "is not connected" not in (said := guest.run("hyrax-network")).output:
            assert time.monotonic() < deadline, said
            time.sleep(1)
        assert said.status == 1
        guest.machine.qmp("set_link", name="card-net0", up=True)
        deadline = time.monotonic() + 60
        while addresses(guest).keys() != found.keys():
            assert time.monotonic() < deadline
            time.sleep(1)

        # A snapshot: nothing is written to the disk while the file system is frozen.
        assert guest.check("systemctl is-active qemu-guest-agent") == "active"
        for other in ("open-vm-tools", "hv-kvp-daemon"):
            assert guest.run(f"systemctl is-active {other}").output == "inactive"
        assert isinstance(count := ask_agent(agent, "guest-fsfreeze-freeze"), int) and count >= 1
        try:
            assert ask_agent(agent, "guest-fsfreeze-status") == "frozen"
        finally:
            assert ask_agent(agent, "guest-fsfreeze-thaw") == count
        assert ask_agent(agent, "guest-fsfreeze-status") == "thawed"
        # A power-off that the hypervisor asks for.
        ask_agent(agent, "guest-shutdown", mode="powerdown")
        guest.machine.wait(120)
        assert "Powering off" in guest.console.tail() or "Power down" in guest.console.tail()


def addresses(guest: Guest) -> dict[str, str]:
    lines = guest.check("ip -4 -o addr show scope global | awk '{print $4, $2}'").splitlines()
    return {address.partition("/")[0]: name for address, name in map(str.split, lines)}
