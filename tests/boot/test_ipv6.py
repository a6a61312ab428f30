"""A network that has IPv6 only, with a file server in it, too: the machine `six`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from hyraxvm.vm.console import LOGIN_PROMPT
from hyraxvm.vm.qemu import HTTP
from tests.boot.data import Case, local
from tests.boot.fileserver import FileServer
from tests.boot.guest import BOOT, Artifact
from tests.boot.machines import booted
from tests.boot.nfs import NfsServer
from tests.boot.test_wires import SIX, SIX_HOST, banner, card

pytestmark = pytest.mark.machines("six")


def test_data_are_served_where_there_is_ipv6_only(
    artifact: Artifact, scratch: Path, files: FileServer, tmp_path: Path
) -> None:
    server = NfsServer(files.export, tmp_path / "ganesha", address="::1")
    server.start()
    try:
        network = ["-netdev", f"user,id=net,ipv4=off,{SIX}"]
        extra = (*network, *card("virtio-net-pci", "net", "52:54:00:00:00:06"))
        spec = replace(artifact.spec.with_overlays(scratch / "six"), cpus=1, nics=(), extra=extra)
        with booted(spec, scratch / "six-run", artifact.reports / "six") as guest:
            guest.console.expect(rf"(?={LOGIN_PROMPT})", BOOT)
            assert "http://[fd00:6:" in banner(guest, ", ready\n", BOOT)
            shown = guest.check("ip -6 -o addr show scope global | awk '{print $4}'")
            (address,) = [line.partition("/")[0] for line in shown.splitlines()]
            (link,) = json.loads(guest.check("hyrax-network status --json"))["links"]
            assert link["addresses"] == [address]
            assert link["gateway"].startswith("fe80:")
            assert link["problem"] is None
            source = f"nfs://[{SIX_HOST}]:{server.port}/data"
            said = guest.check(f"hyrax-data add {source} --as six", 120)
            url = f"http://[{address}]:{HTTP}/opendap/data/six/"
            assert said.splitlines()[-1] == url
            # QEMU forwards no port to an IPv6 address: the guest reads through its own.
            for name, variable in (("classic.nc", "lat"), ("modern.nc", "temperature")):
                # An answer of DAP2 ends with an array's values in XDR (DAP 2.0, 7.3).
                wanted = local(files.export, Case(name, variable)).astype(">f4").tobytes()
                ask = f"curl -gsf '{url}{name}.dods?{variable}' | tail -c {len(wanted)}"
                found = guest.check(f"{ask} | sha256sum").split()[0]
                assert found == hashlib.sha256(wanted).hexdigest()
            row = guest.check("hyrax-data status six").splitlines()[1].split()
            assert [row[0], row[1], row[-1]] == ["six", "mounted", source]
            guest.machine.powerdown(120)
    finally:
        server.stop()
