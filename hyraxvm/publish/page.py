"""The download page: one HTML file, made from the index, that loads nothing else.

Everything is in the HTML; the script only hides what was not asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hyraxvm.core.paths import TEMPLATES
from hyraxvm.core.templates import render
from hyraxvm.release import index

TEMPLATE: Final = TEMPLATES / "download.html.j2"


@dataclass(frozen=True)
class Hypervisor:
    """A program that runs virtual machines, its file, and the three steps; `{}` is the file."""

    id: str
    title: str
    format: str
    steps: tuple[str, str, str]


# The long form is docs/hypervisors.md, which is the README in the zips.
HYPERVISORS: Final = (
    Hypervisor(
        "vmware",
        "VMware Workstation, Player, Fusion",
        "vmx",
        (
            "Unpack the zip.",
            "In VMware choose File, Open, and the file that ends with .vmx.",
            "Power it on. After a minute its console shows the address to open.",
        ),
    ),
    Hypervisor(
        "esxi",
        "VMware ESXi, vSphere",
        "ova",
        (
            "Choose Create / Register VM, Deploy from an OVF or OVA file (vSphere: Deploy OVF "
            "Template).",
            "Choose the file, a datastore and a network.",
            "Power it on. After a minute its console shows the address to open.",
        ),
    ),
    Hypervisor(
        "virtualbox",
        "VirtualBox",
        "ova",
        (
            "Choose File, Import Appliance, and the file.",
            "In Settings, Network, Port Forwarding add host port 8080, guest port 8080.",
            "Start it. After a minute open http://localhost:8080/opendap/.",
        ),
    ),
    Hypervisor(
        "kvm",
        "KVM, virt-manager",
        "qcow2",
        (
            "Move the file to /var/lib/libvirt/images/.",
            "In virt-manager choose New, Import existing disk image, the file, Debian 12.",
            "Finish. After a minute its console shows the address to open.",
        ),
    ),
    Hypervisor(
        "proxmox",
        "Proxmox VE",
        "qcow2",
        (
            "Copy the file to the host, for example to /root.",
            "Make a machine without a disk, then add this one: qm set NUMBER --scsi0 "
            "STORAGE:0,import-from=/root/FILE --boot order=scsi0",
            "Start it. After a minute its console shows the address to open.",
        ),
    ),
    Hypervisor(
        "hyperv",
        "Hyper-V",
        "hyperv",
        (
            "Unpack the zip.",
            "In PowerShell as administrator, in that folder, type: powershell -ExecutionPolicy "
            "Bypass -File .\\create-vm.ps1",
            "Start the machine. After a minute its console shows the address to open.",
        ),
    ),
)


def render_page(published: index.Index) -> str:
    """Return the page as HTML: the newest release, else nightly, and older ones below it."""
    newest = published.find(published.latest.release or published.latest.nightly)
    images = newest.images if newest else []
    others = [
        (title, [one for one in published.available(kind) if one != newest])
        for kind, title in (("release", "Other releases"), ("nightly", "Nightly builds"))
    ]
    return render(
        TEMPLATE,
        newest=newest,
        others=[(title, found) for title, found in others if found],
        formats={file.format for image in images for file in image.files},
        hypervisors=HYPERVISORS,
        key_path=index.key_path,
        notes=index.NOTES,
        provenance=index.PROVENANCE,
    )
