"""images.toml: every fault gives one line with file, key, value and what is expected."""

from __future__ import annotations

import copy
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from hyraxvm import formats
from hyraxvm.config import images, names
from hyraxvm.config.images import Devices
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import IMAGES_TOML
from hyraxvm.formats import FORMATS
from hyraxvm.formats.ovf import read_ovf
from hyraxvm.formats.vmx import parse_vmx
from hyraxvm.stages.provision import guest_tar
from hyraxvm.stages.server import stage as server


def dump(value: Any) -> str:
    """Return TOML for a table of tables; it can do only what this file needs."""
    lines = []
    for kind, table in value.items():
        tables = (
            {kind: table} if kind == "defaults" else {f"{kind}.'{n}'": t for n, t in table.items()}
        )
        for name, content in tables.items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {toml(item)}" for key, item in content.items()]
    return "\n".join(lines) + "\n"


def toml(item: Any) -> str:
    if isinstance(item, dict):
        return "{" + ", ".join(f"{key} = {toml(value)}" for key, value in item.items()) + "}"
    if isinstance(item, list):
        return "[" + ", ".join(toml(entry) for entry in item) + "]"
    return f"'{item}'" if isinstance(item, str) else str(item).lower()


@pytest.fixture
def table() -> dict[str, Any]:
    return copy.deepcopy(tomllib.loads(IMAGES_TOML.read_text()))


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "images.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        images.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert caught.value.status == 2
    return message


def test_a_misspelt_key_is_named_and_not_the_one_that_is_missing(
    tmp_path: Path, table: dict[str, Any]
) -> None:
    table["image"]["nfs"]["acess"] = table["image"]["nfs"].pop("access")
    assert "image.nfs.acess: unknown key" in refused(tmp_path, dump(table))


def test_the_file_is_valid_and_round_trips(tmp_path: Path, table: dict[str, Any]) -> None:
    path = tmp_path / "images.toml"
    path.write_text(dump(table))
    assert images.load(path) == images.load()


@pytest.mark.parametrize(
    ("image", "client"), [("nfs", "nfs-common"), ("smb", "cifs-utils"), ("local", None)]
)
def test_an_image_has_one_client_at_most(image: str, client: str | None) -> None:
    packages = images.recipe(images.load(), image).packages
    found = [name for name in packages if re.search("nfs|cifs|smb|samba", name)]
    assert found == ([client] if client else [])
    assert packages == sorted(set(packages))


def test_the_artifact_name() -> None:
    recipe = images.recipe(images.load(), "nfs", "dapdir", base="debian-12")
    assert names.artifact_name(recipe, "1.0.0") == "hyrax-vm-nfs-dapdir1.0.0-debian12-amd64"


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        (("image", "nfs", "colour"), "red", ["image.nfs.colour", "unknown key", "base, machine"]),
        (("machine", "small", "cpus"), "two", ["machine.small.cpus", "'two'", "integer"]),
        (
            ("machine", "small", "cpus"),
            0,
            ["machine.small.cpus", "0", "greater than or equal to 1"],
        ),
        (
            ("machine", "small", "memory_mib"),
            1023,
            ["machine.small.memory_mib", "1023", "multiple"],
        ),
        (
            ("machine", "small", "devices", "vmx", "nic"),
            "ne2000",
            ["machine.small.devices.vmx.nic", "'ne2000'", "vmxnet3"],
        ),
        (("image", "nfs", "base"), "debian-99", ["image.nfs.base", "debian-99", "debian-12"]),
        (("defaults", "image"), "cdrom", ["defaults.image", "cdrom", "there are: local, nfs, smb"]),
        (("access", "nfs", "packages"), ["no spaces"], ["access.nfs.packages.0", "no spaces"]),
        (("server", "dapdir", "data_root"), "data", ["server.dapdir.data_root", "'data'"]),
        (("budget", "dapdir", "ova"), 0, ["budget.dapdir.ova", "0", "greater"]),
        (("server", "dapdir", "folder"), "../x", ["server.dapdir.folder", "'../x'"]),
    ],
)
def test_a_wrong_value_is_named_with_its_key(
    tmp_path: Path, table: dict[str, Any], path: tuple[str, ...], value: Any, parts: list[str]
) -> None:
    place = table
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    message = refused(tmp_path, dump(table))
    for part in parts:
        assert part in message


def test_a_missing_key_is_named(tmp_path: Path, table: dict[str, Any]) -> None:
    del table["image"]["nfs"]["machine"]
    assert "image.nfs.machine: is missing" in refused(tmp_path, dump(table))


def loaded(tmp_path: Path, table: dict[str, Any]) -> images.Config:
    path = tmp_path / "images.toml"
    path.write_text(dump(table))
    return formats.check(images.load(path), path)


def test_sources_for_r_come_from_a_base_of_the_table(tmp_path: Path, table: dict[str, Any]) -> None:
    wanted = table["addition"]["workshop"]["clients"]["r"]
    wanted["base"] = "debian"
    message = refused(tmp_path, dump(table))
    assert "addition.workshop.clients.r.base: 'debian' lacks " in message
    wanted["base"] = "debian-13"
    wanted["packages"]["r-cran-ncdf4"] = "1.23"
    message = refused(tmp_path, dump(table))
    assert (
        "addition.workshop.clients.r.packages.r-cran-ncdf4: '1.23': string should match" in message
    )


def test_a_budget_is_optional_and_for_a_server_of_the_table(
    tmp_path: Path, table: dict[str, Any]
) -> None:
    table["budget"]["other"] = table["budget"].pop("dapdir")
    message = refused(tmp_path, dump(table))
    assert "budget.other: there is no [server.other]; there are: dapdir, hyrax" in message
    del table["budget"]
    assert images.recipe(loaded(tmp_path, table), "nfs", "dapdir").budget == {}


def test_a_server_needs_neither_folder_nor_budget(tmp_path: Path, table: dict[str, Any]) -> None:
    table["server"]["plain"] = {
        "title": "a plain server",
        "source": "docker://made/plain:1",
        "data_root": "/data",
        "port": 9000,
        "health_path": "/opendap/",
    }
    recipe = images.recipe(loaded(tmp_path, table), "nfs", "plain")
    assert (recipe.server.folder, recipe.budget) == (None, {})
    assert guest_tar.server_part(recipe, "units").parent.name == "generic"


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        (
            ("budget", "dapdir", "iso"),
            9,
            ["budget.dapdir.iso", "no format 'iso'", ", ".join(["server", *FORMATS])],
        ),
        (
            ("machine", "small", "devices", "qcow2"),
            {"disk_controller": "pvscsi", "nic": "vmxnet3", "firmware": "bios"},
            ["machine.small.devices.qcow2", "no descriptor", "expected: vmx, ova"],
        ),
        (("machine", "small", "devices", "ova"), None, ["machine.small.devices.ova", "missing"]),
    ],
)
def test_what_the_table_says_of_formats_is_held_against_them(
    tmp_path: Path, table: dict[str, Any], path: tuple[str, ...], value: Any, parts: list[str]
) -> None:
    place = table
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    with pytest.raises(UserError) as caught:
        loaded(tmp_path, table)
    message = str(caught.value)
    assert "\n" not in message
    for part in [str(tmp_path / "images.toml"), *parts]:
        assert part in message


def test_the_devices_of_a_machine_are_those_of_the_descriptors(tmp_path: Path) -> None:
    recipe = images.recipe(images.load(), "nfs", "dapdir")
    devices = {
        "vmx": Devices(disk_controller="lsisas1068", nic="e1000e", firmware="efi"),
        "ova": Devices(disk_controller="pvscsi", nic="vmxnet3", firmware="efi"),
    }
    machine = recipe.machine.model_copy(update={"devices": devices})
    recipe = recipe.model_copy(update={"machine": machine})
    image = server.preview(recipe)
    vmx = parse_vmx(FORMATS["vmx"].texts(recipe, "x", image)["x.vmx"])
    assert (vmx.disks[0].controller, vmx.nics[0].model) == ("lsisas1068", "e1000e")
    assert vmx.firmware == "efi"
    descriptor = tmp_path / "x.ovf"
    descriptor.write_text(FORMATS["ova"].texts(recipe, "x", image)["x.ovf"])
    ovf = read_ovf(descriptor)
    assert (ovf.controller, ovf.nics, ovf.firmware) == ("pvscsi", ("vmxnet3",), "efi")


def test_two_images_that_differ_in_the_machine_only_have_files_of_their_own(
    tmp_path: Path, table: dict[str, Any]
) -> None:
    table["machine"]["large"] = {**table["machine"]["small"], "memory_mib": 8192}
    table["image"]["nfs-large"] = {**table["image"]["nfs"], "machine": "large"}
    config = loaded(tmp_path, table)
    found = {name: names.artifact_name(images.recipe(config, name), "1") for name in config.image}
    assert len(set(found.values())) == len(found)
    for name, file in found.items():
        matching = [
            other
            for other in config.image
            if fnmatch(f"{file}.ova", names.artifact_glob(images.recipe(config, other), ".ova"))
        ]
        assert matching == [name]


@pytest.mark.parametrize(("image", "server_name"), [("nfs-x", "x-dapdir"), ("nfs-dapdir2", "y")])
def test_images_whose_files_could_have_one_name_are_refused(
    tmp_path: Path, table: dict[str, Any], image: str, server_name: str
) -> None:
    table["image"][image] = table["image"]["nfs"]
    table["server"][server_name] = table["server"]["dapdir"]
    message = refused(tmp_path, dump(table))
    assert "could have files of the same names; rename one of them" in message
    assert image in message


def test_malformed_toml_is_named_with_its_line(tmp_path: Path) -> None:
    assert "line 2" in refused(tmp_path, '[defaults]\nimage = "nfs\n')


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        images.load(tmp_path / "none.toml")


@pytest.mark.parametrize(("image", "server"), [("nope", None), (None, "apache")])
def test_an_unknown_name_lists_the_known_ones(image: str | None, server: str | None) -> None:
    with pytest.raises(UserError, match=r"there is no (image 'nope'|server 'apache'); .* has: "):
        images.recipe(images.load(), image, server)
