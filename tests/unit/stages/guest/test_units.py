"""Which messages of systemd-analyze end a build."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyraxvm.core.errors import Failure
from hyraxvm.stages.guest import units
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
