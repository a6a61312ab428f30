"""Images from every transport: verified, read, flattened, and packed by the stage."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure
from hyraxvm.stages.provision import stage as provision
from hyraxvm.stages.server import oci
from hyraxvm.stages.server import stage as server
from tests.unit.stages.server.image_maker import TAG, Entry, copy_image, link, make_image
from tests.unit.stages.server.plain_image import CONFIG, LAYERS, PASSWD, built, listed, recipe


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive"])
def test_every_local_transport_gives_the_same_server(
    layout: Path, tmp_path: Path, transport: str
) -> None:
    reference = f"oci:{layout}:{TAG}"
    if transport != "oci":
        target = f"{transport}:{tmp_path}/image.tar"
        copy_image(layout, target if transport == "oci-archive" else f"{target}:made/plain:1")
        reference = target
    made = built(oci.check_reference(reference), tmp_path)
    image = made.image
    assert image.entrypoint == ["/opt/serve", "--port", "9000"]
    assert image.environment["GREETING"] == "it's $HOME 100%"
    assert (image.working_directory, image.version) == ("/opt", "2.5")
    assert image.accounts == [server.Account(name="serve", uid=1234, group="serve", gid=1235)]
    assert image.writable == ["/var/lib/state"]
    files = listed(made.squashfs)
    assert {"opt/serve", "etc/motd", "srv/data", "proc", "tmp", "etc/hosts"} <= files
    assert "opt/manual" not in files


def test_a_file_that_is_no_image_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"no tar")
    with pytest.raises(Failure, match=r"skopeo"):
        built(f"oci-archive:{path}", tmp_path)


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive", "docker"])
def test_an_image_that_somebody_has_tampered_with_is_refused(
    layout: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    results: StageCache,
    transport: str,
) -> None:
    """Change one byte of the highest layer, wherever the transport keeps it."""
    copy = tmp_path / "copy"
    shutil.copytree(layout, copy)
    layer = oci.read_image(layout, "amd64").layers[-1].rpartition(":")[2]
    reference = f"oci:{copy}:{TAG}"
    if transport == "docker":
        address = request.getfixturevalue("registry")
        reference = f"docker://{address}/made/{transport}-tampered:1"
    elif transport != "oci":
        reference = f"{transport}:{tmp_path}/image.tar"
    if transport == "oci":
        damaged = copy / "blobs/sha256" / layer
    else:
        tag = ":made/plain:1" if transport == "docker-archive" else ""
        copy_image(copy, f"{reference}{tag}")
        damaged = tmp_path / "image.tar"
    if transport == "docker":
        _, home = request.getfixturevalue("running_registry")
        (damaged,) = home.parent.glob(f"data/**/sha256/*/{layer}/data")
    blob = (layout / "blobs/sha256" / layer).read_bytes()
    # docker-archive keeps layers uncompressed.
    needle = gzip.decompress(blob)[:1500] if transport == "docker-archive" else blob[:40]
    content = damaged.read_bytes()
    assert content.count(needle) == 1
    at = content.index(needle) + len(needle) - 1
    original = damaged.read_bytes()
    damaged.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    try:
        digest = oci.remote_digest(reference) if transport == "docker" else "sha256:0"
        with pytest.raises(Failure, match=r"(?i)digest|content is|checksum"):
            server.build(
                results,
                recipe(reference, digest),
                server.key(recipe(reference, digest)),
                tmp_path / "log",
                lambda line: None,
            )
    finally:
        damaged.write_bytes(original)
    assert [p for p in (results.folder / "stages/server").glob("*") if p.is_dir()] == []


def test_an_image_for_other_machines_is_refused(tmp_path: Path) -> None:
    layout = make_image(tmp_path / "arm", LAYERS, *CONFIG, arch="arm64")
    with pytest.raises(Failure, match="is for linux/arm64, not linux/amd64"):
        oci.read_image(layout, "amd64")


def test_a_layer_that_is_not_what_its_image_says_is_refused(tmp_path: Path) -> None:
    """The blob has its right name, but the manifest has the diff id of another layer."""
    layout = make_image(tmp_path / "bad", LAYERS, *CONFIG)
    image = oci.read_image(layout, "amd64")
    wrong = image.model_copy(update={"diff_ids": image.diff_ids[::-1]})
    with pytest.raises(Failure, match=r"layer 1: its content is sha256:"):
        oci.flatten(layout, wrong, tmp_path / "scratch", lambda line: None)


def test_a_changed_configuration_is_refused(tmp_path: Path) -> None:
    layout = make_image(tmp_path / "bad", LAYERS, *CONFIG)
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    path = layout / "blobs" / manifest.replace(":", "/")
    path.write_text(path.read_text().replace("{", "{ ", 1))
    with pytest.raises(Failure, match="its content does not have the digest in its name"):
        oci.read_image(layout, "amd64")


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_layers_are_read_however_they_are_compressed(tmp_path: Path, how: str) -> None:
    layout = make_image(tmp_path / "image", LAYERS[:1], *CONFIG)
    image = oci.read_image(layout, "amd64")
    blob = layout / "blobs" / image.layers[0].replace(":", "/")
    plain = gzip.decompress(blob.read_bytes())
    assert f"sha256:{hashlib.sha256(plain).hexdigest()}" == image.diff_ids[0]
    if how == "plain":
        blob.write_bytes(plain)
    elif how == "zstd":
        done = subprocess.run(["zstd", "-c"], input=plain, capture_output=True, check=True)
        blob.write_bytes(done.stdout)
    tree = oci.flatten(layout, image, tmp_path / "scratch", lambda line: None)
    assert tree.read("/etc/passwd") == PASSWD


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_a_layer_that_swells_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    layout = make_image(tmp_path / "image", [[Entry("zeros", bytes(50_000_000))]], *CONFIG)
    image = oci.read_image(layout, "amd64")
    blob = layout / "blobs" / image.layers[0].replace(":", "/")
    assert blob.stat().st_size < 200_000
    plain = gzip.decompress(blob.read_bytes())
    if how == "plain":
        blob.write_bytes(plain)
    elif how == "zstd":
        done = subprocess.run(["zstd", "-c"], input=plain, capture_output=True, check=True)
        blob.write_bytes(done.stdout)
    monkeypatch.setattr(oci, "LAYERS", 5_000_000)
    with pytest.raises(Failure, match=r"layer 1: has more than 0\.005 GB with those below it; r"):
        oci.flatten(layout, image, tmp_path / "scratch", lambda line: None)
    assert (tmp_path / "scratch/layer 1").stat().st_size <= 6_000_000


@pytest.mark.parametrize(
    ("user", "wanted"),
    [
        ("serve", ("serve", 1234, 1235)),
        ("1234", ("serve", 1234, 1235)),
        ("1234:serve", ("serve", 1234, 1235)),
        ("serve:0", ("serve", 1234, 0)),
        ("4321", ("server-4321", 4321, 4321)),
        ("4321:0", ("server-4321", 4321, 0)),
        # A process with uid 0 could end the guest's services.
        ("", ("server", 880, 880)),
        ("root", ("server", 880, 880)),
        ("0:0", ("server", 880, 880)),
        ("33", ("server", 880, 880)),
        ("65534", ("server", 880, 880)),
    ],
)
def test_who_runs_the_server(tmp_path: Path, user: str, wanted: tuple[str, int, int]) -> None:
    config = [word for word in CONFIG if not word.startswith("--config.user")]
    layout = make_image(tmp_path / "image", LAYERS, *config, f"--config.user={user}")
    account = built(f"oci:{layout}:{TAG}", tmp_path).image.accounts[0]
    assert (account.name, account.uid, account.gid) == wanted


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--config.user=nobody2", "does not list the user 'nobody2'; it has: root, serve"),
        ("--config.user=serve:staff", "does not list 'staff'; it has: root, serve"),
        ("--config.entrypoint=/opt/nope", "no program /opt/nope; /opt holds: serve"),
        ("--config.entrypoint=/bin/serve", "no program /bin/serve; it has /opt/serve"),
    ],
)
def test_what_is_missing_in_an_image_is_said(tmp_path: Path, option: str, said: str) -> None:
    kind = option.split("=")[0]
    config = [word for word in CONFIG if not word.startswith(kind)]
    layout = make_image(tmp_path / "image", LAYERS, *config, option)
    with pytest.raises(Failure, match=said):
        built(f"oci:{layout}:{TAG}", tmp_path)


def test_the_landing_page_gets_a_place_only_where_one_is_named(
    layout: Path, tmp_path: Path
) -> None:
    reference = f"oci:{layout}:{TAG}"
    digest = oci.local_digest(reference)
    for home in (None, "/opt/pages"):
        more = {"home": home} if home else {}
        made = built(reference, tmp_path, **more)
        units = provision.render_units(recipe(reference, digest, **more), made.image)
        bound = [line for line in units["hyrax-server.service"].splitlines() if "/www" in line]
        assert bound == ([f"BindReadOnlyPaths=/run/hyrax/www:{home}"] if home else [])
        assert ("opt/pages" in listed(made.squashfs)) == bool(home)
    with pytest.raises(Failure, match="no directory /srv/pages; /srv holds: data"):
        built(reference, tmp_path, home="/srv/pages/ROOT")


def test_the_trim_list_is_applied_and_recorded(
    results: StageCache, layout: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    reference = f"oci:{layout}:{TAG}"
    chosen = recipe(reference, oci.local_digest(reference), trim=["/etc/m*", "/no/such"])
    quiet: list[str] = []  # a person sees one of these now and then
    made = server.build(
        results, chosen, server.key(chosen), tmp_path / "log", quiet.append, say=lines.append
    )
    assert not any("trim" in line for line in quiet)
    assert [t.model_dump() for t in made.image.trimmed] == [
        {"pattern": "/etc/m*", "paths": 1, "bytes": 5},
        {"pattern": "/no/such", "paths": 0, "bytes": 0},
    ]
    assert any("trim /etc/m*" in line for line in lines)
    assert "trim: not in this image: /no/such" in lines
    assert "trim: 0.0 MB in all" in lines
    assert "etc/motd" not in listed(made.squashfs)


def test_a_server_over_its_budget_is_refused_with_what_makes_it_large(
    results: StageCache, layout: Path, tmp_path: Path
) -> None:
    large = [*LAYERS, [Entry("opt/lib/deep/er/x", random.Random(1).randbytes(2_000_000))]]
    reference = f"oci:{make_image(tmp_path / 'image', large, *CONFIG)}:{TAG}"
    chosen = recipe(reference, oci.local_digest(reference))
    small = chosen.model_copy(update={"budget": {"server": 1}})
    for _ in range(2):  # the second one is from the cache
        with pytest.raises(Failure) as caught:
            server.build(results, small, server.key(small), tmp_path / "log", lambda line: None)
        said = str(caught.value).splitlines()
        assert said[0].startswith("plain 2.5: 2.0 MB packed; must be at most 1 MB")
        assert "budget.plain.server in images.toml" in said[0]
        assert said[2].split() == ["/opt/lib/deep", "2.0", "MB"]
    made = server.build(
        results,
        chosen,
        server.key(chosen),
        tmp_path / "log",
        lambda line: pytest.fail(f"built again: {line}"),
    )
    assert made.squashfs.stat().st_size > 2_000_000


@pytest.mark.parametrize(
    ("label", "reference", "wanted"),
    [
        ("1.18.0", "docker://x/y:z", "1.18.0"),
        ("v2 (beta)", "oci:/x", "0+v2.beta"),
        ("", "docker://opendap/hyrax:1.17.1", "1.17.1"),
        ("", "docker://127.0.0.1:5000/y:snapshot", "0123456789ab"),
        ("", "oci-archive:/home/me/hyrax:1.tar", "0123456789ab"),
        ("../../x", "oci:/x", "0+x"),
    ],
)
def test_the_version_is_fit_for_a_file_name(label: str, reference: str, wanted: str) -> None:
    image = oci.OciImage(
        digest="sha256:0123456789abcdef", entrypoint=[], environment={}, working_directory="/",
        user="", ports=[], volumes=[], labels={"version": label}, layers=[], diff_ids=[],
    )  # fmt: skip
    assert server.version(image, reference, image.labels["version"]) == wanted


def test_a_hostile_image_is_refused_by_the_stage_and_leaves_nothing(
    tmp_path: Path, results: StageCache
) -> None:
    layout = make_image(tmp_path / "bad", [[link("a", "b"), link("b", "a"), Entry("a/x")]], *CONFIG)
    with pytest.raises(Failure, match="loop of symbolic links"):
        built(f"oci:{layout}:{TAG}", tmp_path)
    assert [p for p in (results.folder / "stages/server").iterdir() if p.is_dir()] == []


def test_tar_module_reads_what_umoci_packed(layout: Path) -> None:
    """Check the tests themselves: the image really has two layers and a whiteout."""
    image = oci.read_image(layout, "amd64")
    blob = layout / "blobs" / image.layers[1].replace(":", "/")
    with tarfile.open(blob) as tar:
        assert "opt/.wh.manual" in tar.getnames()
