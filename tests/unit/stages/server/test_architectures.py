"""The architecture of a server's image: chosen from an index, or said in one line if it lacks."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from invoke import Context

from hyraxvm import formats
from hyraxvm.config import images
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.workspace import Workspace
from hyraxvm.stages.server import choice, embedded, oci
from hyraxvm.stages.server.stage import server_folder
from hyraxvm.tasks import building, common
from tests.unit.stages.server.image_maker import TAG, Entry, copy_image, make_image, push_index
from tests.unit.stages.server.plain_image import CONFIG, LAYERS, hyrax_from


def image(folder: Path, arch: str) -> Path:
    """Make an image with the file /etc/ARCH."""
    return make_image(folder / arch, [LAYERS[0], [Entry(f"etc/{arch}")]], *CONFIG, arch=arch)


def files(results: StageCache, chosen: choice.Choice, arch: str, scratch: Path) -> set[str]:
    layout = oci.pull(results, chosen.image, chosen.digest, arch, scratch / "log", print)
    found = oci.read_image(layout, arch)
    return {*oci.flatten(layout, found, scratch / f"tars-{arch}", print).nodes}


def test_of_two_architectures_the_one_that_is_built_is_chosen(
    results: StageCache, tmp_path: Path, registry: str
) -> None:
    reference = f"docker://{registry}/made/two:1"
    both = {arch: image(tmp_path, arch) for arch in ("amd64", "arm64")}
    push_index(tmp_path / "index", reference, both)
    table, lock = hyrax_from(reference), tmp_path / "images.lock"
    assert oci.architectures(reference) == ["amd64", "arm64"]
    for arch, other in (("amd64", "arm64"), ("arm64", "amd64")):
        chosen = choice.choose(results, table, "hyrax", None, print, lock, {arch})
        assert (chosen.server, chosen.image, chosen.notice) == ("hyrax", reference, ())
        names = files(results, chosen, arch, tmp_path)
        assert f"etc/{arch}" in names
        assert f"etc/{other}" not in names


@pytest.mark.parametrize("shape", ["index", "one image"])
def test_a_missing_architecture_is_one_line(
    results: StageCache, tmp_path: Path, registry: str, shape: str
) -> None:
    reference = f"docker://{registry}/made/lack:{shape.replace(' ', '-')}"
    own = image(tmp_path, "amd64")
    if shape == "index":
        push_index(tmp_path / "index", reference, {"amd64": own, "s390x": image(tmp_path, "s390x")})
        has = "amd64, s390x"
    else:
        copy_image(own, reference)
        has = "amd64"
    table, lock = hyrax_from(reference), tmp_path / "images.lock"
    with pytest.raises(UserError) as caught:
        choice.choose(results, table, "hyrax", None, print, lock, {"arm64"})
    assert str(caught.value) == (
        f"server 'hyrax': {reference} is for {has}, not arm64; "
        "type: ./inv build --server dapdir, or leave --arch out"
    )
    # By default the next server takes its place, and a notice says why.
    chosen = choice.choose(results, table, None, None, print, lock, {"arm64"})
    assert (chosen.server, chosen.image) == ("dapdir", "")
    assert f"is for {has}, not arm64" in "".join(chosen.notice)
    assert choice.choose(results, table, None, None, print, lock, {"amd64"}).server == "hyrax"


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive"])
def test_an_image_from_a_file_is_checked_too(
    results: StageCache, tmp_path: Path, transport: str
) -> None:
    own = image(tmp_path, "amd64")
    reference = f"oci:{own}:{TAG}"
    if transport != "oci":
        reference = f"{transport}:{tmp_path}/image.tar"
        copy_image(own, reference if transport == "oci-archive" else f"{reference}:made/plain:1")
    with pytest.raises(UserError, match=r"is for amd64, not arm64; type: "):
        choice.choose(results, images.load(), "hyrax", reference, print, arches={"arm64"})
    chosen = choice.choose(results, images.load(), "hyrax", reference, print, arches={"amd64"})
    assert chosen.image == reference


def test_an_image_in_the_cache_needs_no_registry(
    results: StageCache, tmp_path: Path, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = f"docker://{registry}/made/kept:1"
    copy_image(image(tmp_path, "amd64"), reference)
    table, lock = hyrax_from(reference), tmp_path / "images.lock"
    chosen = choice.choose(results, table, "hyrax", None, print, lock)
    files(results, chosen, "amd64", tmp_path)
    monkeypatch.setattr(oci, "output", lambda *a, **b: pytest.fail("asked the registry"))
    assert choice.choose(results, table, "hyrax", None, print, lock, {"amd64"}) == chosen


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_the_embedded_servers_image_names_the_guests_architecture(
    tmp_path: Path, arch: str
) -> None:
    recipe = images.recipe(images.load(), "nfs", "dapdir", base="debian-13", arch=arch)
    layer, layout = tmp_path / "layer.tar", tmp_path / "oci"
    with tarfile.open(layer, "w"):
        pass
    embedded.write_image(recipe, server_folder(recipe), layer, layout, tmp_path / "log")
    assert oci.read_image(layout, arch).user == "dapdir"
    assert oci.architectures(f"oci:{layout}:{oci.TAG}") == [arch]


def test_a_damaged_manifest_is_a_failure(tmp_path: Path) -> None:
    own = image(tmp_path, "amd64")
    for blob in (own / "blobs/sha256").iterdir():
        if blob.stat().st_size < 5000 and b'"architecture"' in blob.read_bytes():
            blob.write_text("[]")
    with pytest.raises(Failure):
        oci.architectures(f"oci:{own}:{TAG}")


def test_the_command_line_ends_with_status_2(
    results: StageCache,
    tmp_path: Path,
    registry: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`./inv build nfs --arch arm64 --server hyrax` with an image that has only amd64."""
    reference = f"docker://{registry}/made/typed:1"
    copy_image(image(tmp_path, "amd64"), reference)
    choice.pin(hyrax_from(reference), "hyrax", tmp_path / "images.lock")
    monkeypatch.setattr(common, "read_table", lambda: formats.check(hyrax_from(reference)))
    monkeypatch.setattr(choice.choose, "__defaults__", (tmp_path / "images.lock", ()))
    monkeypatch.setattr(
        Workspace, "here", lambda: Workspace(tmp_path, tmp_path / "artifacts", results)
    )
    with pytest.raises(SystemExit) as raised:
        building.build(Context(), ["nfs"], [], base="debian-13", arch="arm64", server="hyrax")
    assert raised.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        f"./inv: server 'hyrax': {reference} is for amd64, not arm64; "
        "type: ./inv build --server dapdir, or leave --arch out",
    ]
