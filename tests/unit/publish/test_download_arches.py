"""Which file of a release for several architectures and on several bases is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyraxvm.core.errors import UserError
from hyraxvm.publish import download
from tests.unit.publish.test_page_arches import BOTH, release

WANTED = {"image": "nfs", "version": "release", "kind": "vmx"}


@pytest.mark.parametrize(
    ("host", "asked", "name"),
    [
        ("x86_64", {}, "nfs-debian-13-amd64.zip"),
        ("aarch64", {}, "nfs-debian-13-arm64.zip"),
        ("arm64", {}, "nfs-debian-13-arm64.zip"),  # as macOS calls it
        ("riscv64", {}, "nfs-debian-13-arm64.zip"),  # the first one of the release
        ("aarch64", {"arch": "amd64"}, "nfs-debian-13-amd64.zip"),
        ("aarch64", {"base": "debian-12"}, "nfs-debian-12-amd64.zip"),
        ("x86_64", {"base": "debian-12", "image": "smb"}, "smb-debian-12-amd64.zip"),
        ("x86_64", {"kind": "utm"}, "nfs-debian-13-arm64.utm.zip"),
        ("aarch64", {"kind": "ova"}, "nfs-debian-13-amd64.ova"),
    ],
)
def test_this_computers_architecture_comes_first(
    folder: Path, host: str, asked: dict[str, str], name: str
) -> None:
    wanted = download.Wanted(**{**WANTED, **asked})
    one = release(folder, BOTH)
    assert download._choose_file(one, wanted, host).name == name
    if host != "riscv64":
        # Whatever the order of the release.
        other = one.model_copy(update={"images": one.images[::-1]})
        found = download._choose_file(other, wanted, host).name
        assert found.split("-")[3:] == name.split("-")[3:]


def test_what_the_release_lacks_is_said(folder: Path) -> None:
    wanted = download.Wanted(**WANTED, arch="arm64", base="debian-12")
    with pytest.raises(UserError) as caught:
        download._choose_file(release(folder, BOTH), wanted)
    said = str(caught.value)
    assert said.startswith(
        "1.0.0 has no image 'nfs' as vmx for arm64 on debian-12; it has: "
        "nfs as vmx for arm64 on debian-13, "
    )
    assert "smb as ova for amd64 on debian-12" in said
    assert "\n" not in said
