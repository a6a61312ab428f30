"""The stand-in is laid out as the official image, and the guest's files fit that layout."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyraxvm.core.cache import StageCache
from hyraxvm.core.paths import PROVISION
from hyraxvm.core.workspace import Workspace
from hyraxvm.stages.provision import guest_tar
from hyraxvm.stages.server import oci
from hyraxvm.stages.server import stage as server
from tests.servers.build import STANDIN, recipe
from tests.servers.images import make_standin
from tests.servers.layout import VARIANTS, Layout, layout

AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
GUEST = PROVISION / "guest/usr/lib/systemd/system"


@pytest.fixture(scope="module", params=VARIANTS)
def official(request: pytest.FixtureRequest) -> Layout:
    return layout(request.param)


@pytest.fixture(scope="module")
def reference(official: Layout) -> str:
    return make_standin(official.variant)


@pytest.fixture(scope="module")
def packed(
    reference: str, official: Layout, tmp_path_factory: pytest.TempPathFactory
) -> server.PackedServer:
    """The stage `server` of the stand-in."""
    chosen = recipe(f"standin-{official.variant}", reference, **STANDIN)
    results: StageCache = Workspace.here().cache
    log = tmp_path_factory.mktemp("server") / "log"
    return server.build(results, chosen, server.key(chosen), log, print)


@pytest.fixture(scope="module")
def guest(
    packed: server.PackedServer,
    reference: str,
    official: Layout,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """A root directory with the guest's files of this server, and its image in /opt/hyrax."""
    root = tmp_path_factory.mktemp("guest")
    chosen = recipe(f"standin-{official.variant}", reference, **STANDIN)
    for name, (text, _) in guest_tar.server_files(chosen, packed.image).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    accounts = packed.image.accounts
    users = [f"{each.name}:x:{each.uid}:{each.gid}::/:/bin/false\n" for each in accounts]
    groups = [f"{each.group}:x:{each.gid}:\n" for each in accounts]
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n" + "".join(users))
    (root / "etc/group").write_text("root:x:0:\n" + "".join(groups))
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    for path in [*GUEST.glob("*.*"), *(PROVISION / "units").iterdir()]:
        if path.is_file():
            (units / path.name).write_text(path.read_text())
    for name, text in guest_tar.render_units(chosen, packed.image).items():
        (units / name).write_text(text)
    image = root / "opt/hyrax"
    image.parent.mkdir()
    argv = ["unsquashfs", "-quiet", "-no-progress", "-dest", str(image), str(packed.squashfs)]
    subprocess.run([*AS_ROOT, *argv], check=True)
    yield root
    subprocess.run([*AS_ROOT, "rm", "-rf", str(image)], check=True)


def test_the_stand_in_has_the_official_images_owners_modes_and_links(
    reference: str, official: Layout, tmp_path: Path
) -> None:
    place, tag = oci.local_path(reference.partition(":")[2])
    assert tag
    image = oci.read_image(place, "amd64")
    tree = oci.flatten(place, image, tmp_path, lambda line: None)
    found = {}
    for path in official.paths:
        node = tree.nodes.get(path.lstrip("/"))
        if node is None:
            found[path] = "missing"
        elif node.info.issym():
            found[path] = node.info.linkname
        else:
            found[path] = f"{node.info.mode & 0o7777:04o} {node.info.uid} {node.info.gid}"
    assert found == official.paths
    assert [path for path in official.table["absent"] if tree.node(path) is not None] == []
    for name in ("passwd", "group"):
        lines = (tree.read(f"/etc/{name}") or b"").decode().splitlines()
        assert lines[1:] == official.table[name]
    below = [
        (name, node)
        for name, node in tree.nodes.items()
        if name.startswith(f"{official.tomcat[1:]}/")
        and "/webapps/opendap" not in name
        and "/webapps/ROOT" not in name
    ]
    assert len(below) > 50
    assert {(node.info.uid, node.info.gid) for _, node in below} == {(1000, 1001)}
    assert [
        name for name, node in below if node.info.mode & 0o007 and "server.xml" not in name
    ] == []


def test_the_stand_in_has_the_official_images_configuration(
    reference: str, official: Layout
) -> None:
    place, _ = oci.local_path(reference.partition(":")[2])
    image = oci.read_image(place, "amd64")
    assert image.environment == official.environment
    assert image.labels == official.table["labels"]
    assert image.ports == official.table["ports"]
    assert (image.user, image.entrypoint) == (official.table["user"], official.table["command"])


def test_the_guest_has_the_images_ids_and_paths(
    packed: server.PackedServer, official: Layout
) -> None:
    bes, tomcat = packed.image.accounts
    assert (bes.name, bes.uid, bes.group, bes.gid) == ("bes_user", 101, "bes_user", 1000)
    assert (tomcat.name, tomcat.uid, tomcat.group, tomcat.gid) == ("tomcat", 1000, "tomcat", 1001)
    assert packed.image.version == "0.1.0.2"
    assert packed.image.facts["tomcat_real"] == official.tomcat
    assert packed.image.facts["java_home"] == "/etc/alternatives/jre"


def test_tmpfiles_accept_the_layout(guest: Path, packed: server.PackedServer) -> None:
    argv = [*AS_ROOT, "systemd-tmpfiles", f"--root={guest}", "--create", "hyrax-server.conf"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid)
              for path in (guest / "var/log").iterdir()}  # fmt: skip
    assert owners == {"hyrax-bes": (0, 1000), "hyrax-tomcat": (1000, 1001),
                      "hyrax-olfs": (1000, 1001)}  # fmt: skip


def test_units_name_what_is_there(guest: Path, packed: server.PackedServer) -> None:
    units = guest / "usr/lib/systemd/system"
    own = sorted(units.glob("hyrax-*.service"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, own)],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:/usr/lib/systemd/system"},
    )
    # The programs are in the guest's root, not on this machine.
    wrong = [line for line in done.stderr.splitlines()
             if "hyrax" in line and "is not executable" not in line]  # fmt: skip
    assert wrong == []
    image = guest / "opt/hyrax"
    for name in ("hyrax-bes.service", "hyrax-tomcat.service"):
        text = (units / name).read_text()
        bound = re.findall(r"^Bind(?:ReadOnly)?Paths=(?!-)[^:\n]+:([^:\n]+)", text, re.MULTILINE)
        written = re.findall(r"^ReadWritePaths=\+(\S+)", text, re.MULTILINE)
        assert len(bound) > 2
        for path in [*bound, *written]:
            # Absolute links lead into the image.
            argv = [*AS_ROOT, "chroot", str(image), "/usr/bin/test", "-e", path]
            assert subprocess.run(argv).returncode == 0, path
