"""The download page: one HTML file without anything from elsewhere, made from the index.

Everything is in the HTML; the script only hides what was not asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hyraxvm.config.images import base_title, load
from hyraxvm.core.paths import TEMPLATES
from hyraxvm.core.templates import render
from hyraxvm.formats import FORMATS
from hyraxvm.release import index

TEMPLATE: Final = TEMPLATES / "download.html.j2"


@dataclass(frozen=True)
class Hypervisor:
    """A program that runs virtual machines, its file, and the three steps.

    In a step `{system}` stands for the system in the images.
    """

    id: str
    title: str
    format: str
    steps: tuple[str, str, str]


# The long form is docs/hypervisors.md, which lies in the zips as their README.
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
            "In virt-manager choose New, Import existing disk image, the file, {system}.",
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


def hypervisors() -> list[Hypervisor]:
    """Return what a reader may have; a format of none of them comes last, by itself."""
    known = {one.format for one in HYPERVISORS}
    others = [
        Hypervisor(
            kind.name,
            kind.title,
            kind.name,
            (
                "Unpack the file, if your hypervisor does not take it as it is.",
                "Make a machine with this disk.",
                "Start it. After a minute its console shows the address to open.",
            ),
        )
        for kind in FORMATS.values()
        if kind.name not in known
    ]
    return [*HYPERVISORS, *others]


def render_page(published: index.Index) -> str:
    """The page as HTML: the newest release, or else nightly, and the older ones below."""
    newest = published.find(published.latest.release or published.latest.nightly)
    images = newest.images if newest else []
    others = [
        (title, [one for one in published.available(kind) if one != newest])
        for kind, title in (("release", "Other releases"), ("nightly", "Nightly builds"))
    ]
    table = load()
    systems = dict.fromkeys(base_title(table, image.base) for image in images)
    return render(
        TEMPLATE,
        newest=newest,
        system=" or ".join(systems),
        others=[(title, found) for title, found in others if found],
        formats={file.format for image in images for file in image.files},
        hypervisors=hypervisors(),
        key_path=index.key_path,
        notes=index.NOTES,
        provenance=index.PROVENANCE,
    )
