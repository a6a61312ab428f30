"""The UTM bundle: its description, and bundles of others that are refused."""

from __future__ import annotations

import plistlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyraxvm.config import images
from hyraxvm.formats import utm
from tests.unit.formats.shelf import Shelf, refused

RECIPE = images.recipe(images.load(), "nfs", "dapdir", base="debian-13", arch="arm64")
# Per part, the keys that UTM 4 decodes without a default (Configuration/UTM*.swift, `init(from:)`).
REQUIRED = {
    "Information": {"Name", "IconCustom", "UUID"},
    "System": {
        *("Architecture", "Target", "CPU", "CPUFlagsAdd", "CPUFlagsRemove", "CPUCount"),
        *("ForceMulticore", "MemorySize", "JITCacheSize"),
    },
    "QEMU": {
        *("DebugLog", "UEFIBoot", "RNGDevice", "BalloonDevice", "TPMDevice", "Hypervisor"),
        *("RTCLocalTime", "PS2Controller", "AdditionalArguments"),
    },
    "Input": {"UsbBusSupport", "UsbSharing", "MaximumUsbShare"},
    "Sharing": {"DirectoryShareMode", "DirectoryShareReadOnly", "ClipboardSharing"},
    "Display": {
        *("Hardware", "DynamicResolution", "NativeResolution"),
        *("UpscalingFilter", "DownscalingFilter"),
    },
    "Drive": {"Identifier", "ImageType", "Interface"},
    "Network": {"Mode", "Hardware", "MacAddress", "IsolateFromHost", "PortForward"},
    "Serial": set(),
    "Sound": set(),
}


def test_the_description_has_every_key_that_utm_requires() -> None:
    config = utm.config(RECIPE, "nm")
    assert (config["Backend"], config["ConfigurationVersion"]) == ("QEMU", 4)
    assert {*config} == {*REQUIRED, "Backend", "ConfigurationVersion"}
    for name, keys in REQUIRED.items():
        parts = config[name] if isinstance(config[name], list) else [config[name]]
        for part in parts:
            assert keys <= {*part}, name
    system = config["System"]
    assert (system["Architecture"], system["Target"]) == ("aarch64", "virt")
    assert (system["MemorySize"], system["CPUCount"]) == (1024, 2)
    assert config["QEMU"]["UEFIBoot"] is True
    assert config["Drive"][0]["ImageName"] == "nm.qcow2"


def test_images_differ_in_identity_and_the_same_image_does_not() -> None:
    one, same, other = (utm.config(RECIPE, name) for name in ("a", "a", "b"))
    assert one == same
    for part, key in (("Information", "UUID"), ("Drive", "Identifier"), ("Network", "MacAddress")):
        values = [c[part][0][key] if part != "Information" else c[part][key] for c in (one, other)]
        assert values[0] != values[1]
    address = one["Network"][0]["MacAddress"]
    assert len(address.split(":")) == 6
    # A card's own address (not a group's), and one that no maker has given out.
    assert int(address[:2], 16) & 0b11 == 0b10


def _without(*keys: str | int) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        for key in keys[:-1]:
            config = config[key]
        del config[keys[-1]]

    return change


def _with(value: object, *keys: str | int) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_with("Apple", "Backend"), "Backend: 'Apple'"),
        (_with(3, "ConfigurationVersion"), "ConfigurationVersion: 3"),
        (_with("4", "ConfigurationVersion"), "ConfigurationVersion: '4'"),
        (_without("System"), "System"),
        (_with(0, "System", "CPUCount"), "System.CPUCount: 0"),
        (_with(2**40, "System", "MemorySize"), "System.MemorySize"),
        (_with("../../x", "Drive", 0, "ImageName"), "Drive.0.ImageName: '../../x'"),
        (_with("other.qcow2", "Drive", 0, "ImageName"), "other.qcow2: config.plist names it"),
        (_with("IDE", "Drive", 0, "Interface"), "Drive.0.Interface: 'IDE'"),
        (_with([], "Drive"), "Drive: []"),
        (_with("rtl8139", "Network", 0, "Hardware"), "Network.0.Hardware: 'rtl8139'"),
    ],
)
def test_a_description_of_others_is_refused(
    shelf: Shelf, tmp_path: Path, change: Callable[[Any], None], said: str
) -> None:
    assert said in refused(_changed(shelf, tmp_path, change), tmp_path / "into")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not an XML property list"),
        (b"<plist><integer>x</integer></plist>", "is not an XML property list"),
        (plistlib.dumps({"Backend": "QEMU"}, fmt=plistlib.FMT_BINARY), "is not an XML property"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><plist><string>&b;</string></plist>', "is not an XML"),
        (b" " * (utm.MAX_BYTES + 1), "too long"),
    ],
)
def test_what_is_not_a_description_is_refused(
    shelf: Shelf, tmp_path: Path, data: bytes, said: str
) -> None:
    assert said in refused(_changed(shelf, tmp_path, lambda config: None, data), tmp_path / "into")


def _changed(
    shelf: Shelf, folder: Path, change: Callable[[Any], None], data: bytes | None = None
) -> Path:
    """Return a copy of the shelf's bundle with another description."""
    path = folder / shelf.path("utm").name
    with zipfile.ZipFile(shelf.path("utm")) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith(utm.CONFIG):
                config = plistlib.loads(content)
                change(config)
                content = plistlib.dumps(config) if data is None else data
            new.writestr(member, content)
    return path
