"""images.toml: every fault gives one line with file, key, value and what is allowed."""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hyraxvm.config import images, names
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import IMAGES_TOML


def dump(value: Any) -> str:
    """TOML of a table of tables, enough for this file."""
    lines = []
    for kind, table in value.items():
        tables = (
            {kind: table} if kind == "defaults" else {f"{kind}.{n}": t for n, t in table.items()}
        )
        for name, content in tables.items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {toml(item)}" for key, item in content.items()]
    return "\n".join(lines) + "\n"


def toml(item: Any) -> str:
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
    recipe = images.recipe(images.load(), "nfs", "dapdir")
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
        (("machine", "small", "nic"), "ne2000", ["machine.small.nic", "'ne2000'", "vmxnet3"]),
        (("image", "nfs", "base"), "debian-99", ["image.nfs.base", "debian-99", "debian-12"]),
        (("defaults", "image"), "cdrom", ["defaults.image", "cdrom", "there are: local, nfs, smb"]),
        (("access", "nfs", "packages"), ["no spaces"], ["access.nfs.packages.0", "no spaces"]),
        (("server", "dapdir", "data_root"), "data", ["server.dapdir.data_root", "'data'"]),
        (("budget", "dapdir", "ova"), 0, ["budget.dapdir.ova", "0", "greater"]),
        (
            ("budget", "dapdir", "iso"),
            9,
            ["budget.dapdir.iso", "unknown key", "hyperv, ova, qcow2, server"],
        ),
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


def test_a_server_without_a_budget_is_named(tmp_path: Path, table: dict[str, Any]) -> None:
    table["budget"]["other"] = table["budget"].pop("dapdir")
    message = refused(tmp_path, dump(table))
    assert (
        "server.dapdir.budget: 'dapdir' names no [budget.*] table; there are: hyrax, other"
        in message
    )


def test_malformed_toml_is_named_with_its_line(tmp_path: Path) -> None:
    assert "line 2" in refused(tmp_path, '[defaults]\nimage = "nfs\n')


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        images.load(tmp_path / "none.toml")


@pytest.mark.parametrize(("image", "server"), [("nope", None), (None, "apache")])
def test_an_unknown_name_lists_the_known_ones(image: str | None, server: str | None) -> None:
    with pytest.raises(UserError, match=r"there is no (image 'nope'|server 'apache'); .* has: "):
        images.recipe(images.load(), image, server)
