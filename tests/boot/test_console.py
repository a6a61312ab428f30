"""What anyone who starts the machine finds on its console."""

from __future__ import annotations

import hashlib
import re

import pytest

from hyraxvm.vm.console import LOGIN_PROMPT
from hyraxvm.vm.qemu import HTTP, SSH
from tests.boot.guest import PASSWORD, USER, Artifact, Guest
from tests.boot.machines import RecordProperty

pytestmark = pytest.mark.machines("first", "brief")
# The driver of the controller in udev's tree; without one, the driver of its disk.
DISK_DRIVERS = {
    "pvscsi": "vmw_pvscsi",
    "lsisas1068": "mptsas",
    "virtio": "virtio_scsi",
    "virtio-blk": "virtio_blk",
    "ide": "ata_piix",
    "nvme": "nvme",
}
NIC_DRIVERS = {"vmxnet3": "vmxnet3", "e1000": "e1000", "e1000e": "e1000e", "virtio": "virtio_net"}


def test_the_file_is_the_one_that_the_manifest_describes(artifact: Artifact) -> None:
    (entry,) = [e for e in artifact.manifest["files"] if e["name"] == artifact.path.name]
    assert artifact.path.stat().st_size == entry["size"]
    with artifact.path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]
    files = (path for path in artifact.folder.rglob("*") if path.is_file())
    inside = {path.name: path.stat().st_size for path in files}
    assert inside == {e["name"]: e["size"] for e in entry["contents"]}


def test_the_banner_shows_product_address_and_how_to_log_in(
    guest: Guest, artifact: Artifact
) -> None:
    release = artifact.manifest["release"]
    # The banner is printed again when the server is ready.
    shown = guest.console.expect(rf"server: [^\r\n]*, ready\r?\n[\s\S]*?(?={LOGIN_PROMPT})", 90)
    shown = shown[shown.rindex(release["NAME"]) :]
    assert f"{release['NAME']} {release['VERSION']}, image {release['IMAGE']}" in shown
    # The banner has the server's title, which differs in capitals.
    assert f"{release['SERVER']} {release['SERVER_VERSION']}".lower() in shown.lower()
    assert ("not Hyrax" in shown) == (release["SERVER"] != "hyrax")
    assert "http://10.0.2.15:8080/opendap/" in shown
    assert "opendap / opendap" in shown
    assert "then type: hyrax-setup" in shown


@pytest.mark.machines("first")
def test_a_wrong_password_is_refused(guest: Guest) -> None:
    assert guest.console.try_login(USER, "not-" + PASSWORD, 60) is False


def test_opendap_logs_in_and_may_do_everything(guest: Guest) -> None:
    assert guest.check("id -un") == "opendap"
    assert guest.check("sudo -n id -u") == "0"
    # The login on the screen; the tests use the serial console.
    assert guest.check("systemctl is-active getty@tty1.service") == "active"


def test_start_and_idle_memory_are_measured(guest: Guest, record_property: RecordProperty) -> None:
    assert guest.first_answer is not None
    record_property("seconds from power-on to the first DAP answer", round(guest.first_answer, 1))
    record_property("accelerator", guest.machine.accelerator.name)
    total, used = map(int, guest.check("free -m | awk '/^Mem:/ {print $2, $3}'").split())
    record_property("MiB of memory used when idle", used)
    assert 0 < used < total


def test_the_hardware_is_the_one_that_the_descriptor_declares(guest: Guest) -> None:
    spec = guest.machine.spec
    assert guest.check("nproc") == str(spec.cpus)
    total = int(guest.check("awk '/^MemTotal:/ {print $2}' /proc/meminfo")) / 1024
    # The kernel keeps some for itself.
    assert 0.85 * spec.memory_mib < total < spec.memory_mib
    disk = guest.check("basename $(lsblk -nro PKNAME $(findmnt -no SOURCE /))")
    above = guest.check(f"udevadm info -a /dev/{disk} | sed -n 's/.*DRIVERS==\"\\(.*\\)\"/\\1/p'")
    assert DISK_DRIVERS[spec.drives[0].controller] in above.split()
    driver = guest.check("basename $(readlink /sys/class/net/eth0/device/driver)")
    assert driver == NIC_DRIVERS[spec.nics[0]]
    efi = guest.run("test -d /sys/firmware/efi").status == 0
    assert efi == (spec.firmware == "efi")


def test_no_unit_has_failed(guest: Guest) -> None:
    assert guest.check("systemctl --failed --no-legend --plain") == ""
    # It would be "degraded" if a unit had failed, "starting" if one never ended.
    assert guest.check("systemctl is-system-running --wait", 120) == "running"


def test_nothing_waits_for_a_person_when_the_system_is_damaged(guest: Guest) -> None:
    assert {"fsck.repair=yes", "panic=30"} <= set(guest.check("cat /proc/cmdline").split())
    assert guest.check("cat /proc/sys/kernel/panic") == "30"
    assert "errors=panic" in guest.check("findmnt -no OPTIONS /").split(",")
    assert "reboot" in guest.check("systemctl show -p ExecStart emergency.service")


def test_programs_get_random_addresses(guest: Guest) -> None:
    # Only the credential that an emulated machine gets from this test turns it off.
    credential = guest.check("sudo -n cat /run/credentials/@system/sysctl.extra || true")
    found = guest.check("cat /proc/sys/kernel/randomize_va_space")
    assert (credential, found) in {("", "2"), ("kernel.randomize_va_space=0", "0")}
    assert "randomize_va_space" not in guest.check("systemd-analyze cat-config sysctl.d")


def test_only_the_service_and_ssh_listen(guest: Guest) -> None:
    tcp, datagrams = set(), set()
    for line in guest.check("sudo -n ss -H -lntu").splitlines():
        protocol, _, _, _, address = line.split()[:5]
        host, _, port = address.rpartition(":")
        # Java's sockets for IPv4 show as ::ffff:127.0.0.1.
        if re.fullmatch(r"(\[::ffff:)?127\.[\d.]+\]?(%\w+)?|\[::1\]", host):
            continue
        if protocol == "tcp":
            tcp.add(int(port))
        else:
            datagrams.add((host, int(port)))
    assert tcp == {HTTP, SSH}
    # The DHCP client has these ports, on its own address only.
    assert {port for _, port in datagrams} <= {68, 546}
    assert not {host for host, _ in datagrams} & {"*", "0.0.0.0", "[::]"}


def test_the_version_file_equals_the_manifest(guest: Guest, artifact: Artifact) -> None:
    assert guest.release() == artifact.manifest["release"]


@pytest.mark.machines("first")
def test_packages_are_those_of_the_manifest(guest: Guest, artifact: Artifact) -> None:
    text = guest.fetch("dpkg-query -W -f '${Package}\\t${Version}\\n'").decode()
    installed = dict(line.split("\t") for line in text.splitlines())
    assert installed == artifact.manifest["packages"]


# The programs on the disk are the same in all formats.
@pytest.mark.machines("first")
@pytest.mark.parametrize(
    ("access", "package", "module", "program"),
    [("nfs", "nfs-common", "nfsv4", "mount.nfs4"), ("smb", "cifs-utils", "cifs", "mount.cifs")],
)
def test_it_has_the_client_of_its_protocol_and_no_other(
    guest: Guest, artifact: Artifact, access: str, package: str, module: str, program: str
) -> None:
    wanted = artifact.manifest["release"]["ACCESS"] == access
    assert (package in artifact.manifest["packages"]) == wanted
    assert (guest.run(f"test -e /usr/sbin/{program}").status == 0) == wanted
    # The kernel has the modules of all clients.  The watchdog loads only that of its own client, at
    # low priority.
    loaded = f"grep -q '^{module} ' /proc/modules"
    if wanted:
        guest.wait_for(loaded, 90)
    else:
        assert guest.run(loaded).status == 1


@pytest.mark.machines("first")
def test_nobody_else_can_log_in_and_no_key_of_the_build_is_left(guest: Guest) -> None:
    assert guest.check("sudo -n awk -F: '$2 !~ /^[!*]/ {print $1}' /etc/shadow") == "opendap"
    assert guest.check("sudo -n passwd --status root").split()[1] == "L"
    shells = guest.check("awk -F: '$7 !~ /(nologin|false|sync)$/ {print $1}' /etc/passwd")
    assert set(shells.split()) == {"root", "opendap"}
    found = "-name 'authorized_keys*' -o -name 'id_*' -path '*/.ssh/*'"
    assert guest.check(f"sudo -n find / -xdev \\( {found} \\) -print", 120) == ""


def test_the_root_file_system_has_the_size_of_the_disk(guest: Guest, artifact: Artifact) -> None:
    size = int(guest.check("df --output=size -B1 / | tail -n 1"))
    # ext4's own tables, the ESP and the boot partition take the rest.
    assert 0.9 * artifact.disk_bytes < size < artifact.disk_bytes
