"""The links that enable units, and which messages of systemd-analyze end a build."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hyraxvm.core.errors import Failure
from hyraxvm.core.process import as_root
from hyraxvm.stages.guest import units
from hyraxvm.stages.guest.ext4 import FileSystem
from hyraxvm.stages.provision.guest_tar import UNITS

SERVICE = "[Unit]\nDescription=x\nDefaultDependencies=no\n[Service]\nExecStart=/bin/true\n"


def test_only_faults_of_this_projects_units_count(tmp_path: Path) -> None:
    # As in a cache whose folder has the name of the project.
    tree = tmp_path / "hyrax-vm" / "units"
    folder = tree / UNITS
    folder.mkdir(parents=True)
    (folder / "new.service").write_text(f"{SERVICE}KeyOfNewerSystemd=yes\n")
    own = folder / "hyrax-own.service"
    own.write_text(SERVICE.replace("[Service]", "After=new.service\nWants=new.service\n[Service]"))
    units._verify(tree, [own.name])
    own.write_text(f"{SERVICE}KyeOfMine=yes\n")
    with pytest.raises(Failure, match=r"hyrax-own.service:6: Unknown key .*'KyeOfMine'"):
        units._verify(tree, [own.name])


def test_units_that_the_provisioned_disk_has_already_are_enabled(tmp_path: Path) -> None:
    # The provisioning boot of a server that it starts gets all files of the guest, so none lands.
    # The unit's drop-in is a link, as those with the shared sandbox are.
    tree = tmp_path / "tree"
    for name in (f"{UNITS}/hyrax-own.service.d", "etc/systemd/system", "usr/lib/hyrax-vm"):
        (tree / name).mkdir(parents=True)
    own = tree / UNITS / "hyrax-own.service"
    own.write_text(f"{SERVICE}[Install]\nWantedBy=multi-user.target\n")
    (tree / UNITS / "multi-user.target").write_text("[Unit]\nDescription=x\n")
    shared = tree / "usr/lib/hyrax-vm/sandbox.conf"
    shared.write_text("[Service]\nNoNewPrivileges=yes\n")
    drop_in = tree / f"{UNITS}/hyrax-own.service.d/sandbox.conf"
    drop_in.symlink_to("../../../hyrax-vm/sandbox.conf")
    disk = tmp_path / "disk.raw"
    make = ["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", str(tree), str(disk), "16M"]
    subprocess.run(as_root(make), check=True, capture_output=True)
    templates = {
        units.PRESET: ("enable hyrax-own.service\n", False),
        units.MASKED: ("cron.service\n", False),
    }
    made, removed = units.links(FileSystem(disk, 0), {}, templates, [own.name], tmp_path / "work")
    wants = "etc/systemd/system/multi-user.target.wants/hyrax-own.service"
    # systemctl names /lib or /usr/lib, by its version; both are the same folder.
    assert made[wants].content.decode().endswith(f"/lib/systemd/system/{own.name}")
    assert removed == set()
