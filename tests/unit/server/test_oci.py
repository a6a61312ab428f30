"""Images from every transport: pulled, verified, read, flattened; and the choice of a server."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
import socket
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from image_maker import TAG, Entry, copy_image, folder, link, make_image, program

from hyraxvm import config, oci, provision, server, source
from hyraxvm.errors import Failure, UserError

PASSWD = b"root:x:0:0::/root:/bin/sh\nserve:x:1234:1235::/:/sbin/nologin\n"
GROUP = b"root:x:0:\nserve:x:1235:\n"
LAYERS = [
    [folder("etc/"), Entry("etc/passwd", PASSWD), Entry("etc/group", GROUP),
     folder("opt/"), program("opt/serve"), Entry("opt/manual", b"m" * 5000)],
    [Entry("opt/.wh.manual"), Entry("etc/motd", b"hello"), folder("var/lib/state/")],
]  # fmt: skip
CONFIG = (
    "--config.user=serve",
    "--config.workingdir=/opt",
    "--config.entrypoint=/opt/serve",
    "--config.cmd=--port",
    "--config.cmd=9000",
    "--config.env=GREETING=it's $HOME 100%",
    "--config.exposedports=9000/tcp",
    "--config.volume=/var/lib/state",
    "--config.label=org.opencontainers.image.version=2.5",
)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image") / "layout", LAYERS, *CONFIG)


def recipe(reference: str, digest: str, **more: Any) -> config.Recipe:
    table = config.load()
    base = config.recipe(table, "nfs", "dapdir", reference, digest)
    fields = {
        "title": "a plain server",
        "source": "docker://made/plain:1",
        "data_root": "/srv/data",
        "port": 9000,
        "health_path": "/opendap/",
        **more,
    }
    return base.model_copy(
        update={"server_name": "plain", "server": config.Server.model_validate(fields)}
    )


def built(reference: str, tmp_path: Path, **more: Any) -> server.Server:
    chosen = recipe(reference, oci.local_digest(reference), **more)
    return server.build(chosen, tmp_path / "log", lambda line: None)


def listed(squashfs: Path) -> set[str]:
    done = subprocess.run(
        ["unsquashfs", "-l", squashfs], capture_output=True, text=True, check=True
    )
    return {line.removeprefix("squashfs-root/") for line in done.stdout.splitlines()[1:]}


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


def test_a_pinned_image_is_pulled_once_and_by_its_digest(
    layout: Path, tmp_path: Path, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged = f"docker://{registry}/made/plain:1"
    copy_image(layout, tagged)
    lock = tmp_path / "images.lock"
    table = with_source(tagged)
    digest = source.pin(table, "plain", lock)
    # The tag moves on; what is built does not.
    other = make_image(tmp_path / "other", [*LAYERS, [Entry("etc/moved")]], *CONFIG)
    copy_image(other, tagged)
    said: list[str] = []
    chosen = source.choose(table, "plain", None, said.append, lock)
    assert (chosen.image, chosen.digest, chosen.notice, said) == (tagged, digest, (), [])
    place = recipe(tagged, digest)
    made = server.build(place, tmp_path / "log", lambda line: None)
    assert "etc/moved" not in listed(made.squashfs)
    assert made.image.image_digest == digest
    # In the cache: no registry is needed any more.
    monkeypatch.setattr(oci, "remote_digest", lambda *a: pytest.fail("asked the registry"))
    assert source.choose(table, "plain", None, said.append, lock) == chosen
    oci.pull(tagged, digest, "amd64", tmp_path / "log", lambda line: pytest.fail("pulled again"))


def test_the_first_build_pins_and_says_so(layout: Path, tmp_path: Path, registry: str) -> None:
    tagged = f"docker://{registry}/made/first:1"
    copy_image(layout, tagged)
    lock = tmp_path / "images.lock"
    said: list[str] = []
    chosen = source.choose(with_source(tagged), None, None, said.append, lock)
    assert json.loads(lock.read_text())["plain"]["digest"] == chosen.digest
    assert chosen.digest in said[0]


def test_a_lock_for_another_tag_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "images.lock"
    lock.write_text('{"plain": {"source": "docker://made/plain:0", "digest": "sha256:0"}}')
    with pytest.raises(UserError, match=r"pins docker://made/plain:0 .* type: ./inv pin plain"):
        source.choose(with_source("docker://made/plain:1"), "plain", None, print, lock)
    lock.write_text("{not json")
    with pytest.raises(UserError, match="cannot be read"):
        source.choose(with_source("docker://made/plain:1"), None, None, print, lock)


def test_auto_falls_back_with_a_notice_and_a_named_server_never_does(tmp_path: Path) -> None:
    dead = with_source("docker://127.0.0.1:1/made/plain:1")
    lock = tmp_path / "images.lock"
    chosen = source.choose(dead, None, None, print, lock)
    assert (chosen.server, chosen.image) == ("dapdir", "")
    shown = source.banner(chosen.notice)
    assert "NOT a plain server" in shown
    assert "connection refused" in shown
    assert "dapdir (embedded default, not Hyrax)" in shown
    assert "--server-image oci-archive:FILE" in shown
    assert len({len(line) for line in shown.splitlines()}) == 1
    with pytest.raises(Failure, match="connection refused"):
        source.choose(dead, "plain", None, print, lock)
    assert not lock.exists()


def test_a_registry_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    assert oci.PROBE == 10
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(Failure, match="not done after 1 s") as caught:
            oci.remote_digest(f"docker://{address}/made/plain:1", 1.0)
        assert time.monotonic() - started < 5
        assert "\n" not in str(caught.value)


def test_a_tag_that_is_not_there_is_the_users_mistake(
    layout: Path, tmp_path: Path, registry: str
) -> None:
    name = f"docker://{registry}/made/tags"
    for tag in ("1.17.1-9-el9", "1.18.0-2-el9", "1.18.0-10-el9", "snapshot"):
        copy_image(layout, f"{name}:{tag}")
    lock = tmp_path / "images.lock"
    said = f"{name}:1.18.0: there is no such tag; it has 1.18.0-2-el9, 1.18.0-10-el9"
    # Nor does `auto` fall back: the registry answers, the table is wrong.
    for server_name in ("plain", None):
        with pytest.raises(UserError) as caught:
            source.choose(with_source(f"{name}:1.18.0"), server_name, None, print, lock)
        assert str(caught.value) == said
    with pytest.raises(UserError, match=r"it has snapshot, 1\.17\.1-9-el9, "):
        source.pin(with_source(f"{name}:2"), "plain", lock)
    assert not lock.exists()


def test_pinning_again_takes_what_the_tag_has_become(
    layout: Path, tmp_path: Path, registry: str
) -> None:
    tagged = f"docker://{registry}/made/again:1"
    copy_image(layout, tagged)
    lock = tmp_path / "images.lock"
    lock.write_text('{"other": {"source": "docker://x/y:1", "digest": "sha256:1"}}')
    first = source.pin(with_source(tagged), "plain", lock)
    copy_image(make_image(tmp_path / "other", [[program("opt/serve")]], *CONFIG), tagged)
    second = source.pin(with_source(tagged), "plain", lock)
    assert first != second
    kept = json.loads(lock.read_text())
    assert kept["plain"] == {"source": tagged, "digest": second}
    assert kept["other"]["digest"] == "sha256:1"
    assert [path.name for path in tmp_path.glob("*images.lock*")] == ["images.lock"]


def test_an_image_of_a_registry_can_be_named_on_the_command_line(
    layout: Path, registry: str
) -> None:
    tagged = f"docker://{registry}/made/named:1"
    copy_image(layout, tagged)
    chosen = source.choose(with_source("docker://made/plain:1"), None, tagged, print)
    assert (chosen.server, chosen.image) == ("plain", tagged)
    assert chosen.digest == oci.remote_digest(tagged)
    named = oci.with_digest(tagged, chosen.digest)
    assert source.choose(with_source("docker://x/y:1"), None, named, print).digest == chosen.digest


def with_source(reference: str) -> config.Config:
    """The table with a server `plain` that comes first."""
    table = config.load()
    plain = recipe(reference, "", source=reference).server
    defaults = table.defaults.model_copy(update={"auto": ["plain", "dapdir"]})
    return table.model_copy(
        update={"server": {**table.server, "plain": plain}, "defaults": defaults}
    )


@pytest.mark.parametrize(
    ("server_name", "reference", "said"),
    [
        (None, "http://x", "oci-archive:FILE, oci:DIRECTORY"),
        (None, "oci-archive:", "is not an image"),
        (None, "oci-archive:/nowhere.tar", "/nowhere.tar: no such file"),
        (None, "docker-archive:/nowhere.tar", "/nowhere.tar: no such file"),
        (None, "oci:/etc", "no index.json"),
        (None, "docker://-x", "names no image"),
        ("dapdir", "oci:/etc", "--server can be: hyrax"),
        ("nope", "oci:/etc", "there is no server 'nope'"),
    ],
)
def test_a_wrong_reference_is_one_line(server_name: str | None, reference: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        source.choose(config.load(), server_name, reference, print)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_on_the_command_line_goes_to_the_server_that_is_wanted_first(
    layout: Path,
) -> None:
    chosen = source.choose(config.load(), None, f"oci:{layout}:{TAG}", print)
    assert (chosen.server, chosen.image) == ("hyrax", f"oci:{layout}:{TAG}")
    assert chosen.digest.startswith("sha256:")


def test_a_file_that_is_no_image_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"no tar")
    with pytest.raises(Failure, match=r"skopeo"):
        built(f"oci-archive:{path}", tmp_path)


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive", "docker"])
def test_an_image_that_somebody_has_tampered_with_is_refused(
    layout: Path, tmp_path: Path, request: pytest.FixtureRequest, own_cache: Path, transport: str
) -> None:
    """One octet of the highest layer, wherever the transport keeps it."""
    copy = tmp_path / "copy"
    shutil.copytree(layout, copy)
    layer = oci.read_image(layout).layers[-1].rpartition(":")[2]
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
            server.build(recipe(reference, digest), tmp_path / "log", lambda line: None)
    finally:
        damaged.write_bytes(original)
    assert [p for p in (own_cache / "stages/server").glob("*") if p.is_dir()] == []


def test_an_image_for_other_machines_is_refused(tmp_path: Path) -> None:
    layout = make_image(tmp_path / "arm", LAYERS, *CONFIG, arch="arm64")
    with pytest.raises(Failure, match="is for linux/arm64, not linux/amd64"):
        oci.read_image(layout)


def test_a_layer_that_is_not_what_its_image_says_is_refused(tmp_path: Path) -> None:
    """A blob under its right name, in a manifest whose diff ids are another layer's."""
    layout = make_image(tmp_path / "bad", LAYERS, *CONFIG)
    image = oci.read_image(layout)
    wrong = image.model_copy(update={"diff_ids": image.diff_ids[::-1]})
    with pytest.raises(Failure, match=r"layer 1: its content is sha256:"):
        oci.flatten(layout, wrong, tmp_path / "scratch", lambda line: None)


def test_a_changed_configuration_is_refused(tmp_path: Path) -> None:
    layout = make_image(tmp_path / "bad", LAYERS, *CONFIG)
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    path = layout / "blobs" / manifest.replace(":", "/")
    path.write_text(path.read_text().replace("{", "{ ", 1))
    with pytest.raises(Failure, match="not what its name says"):
        oci.read_image(layout)


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_layers_are_read_however_they_are_compressed(tmp_path: Path, how: str) -> None:
    layout = make_image(tmp_path / "image", LAYERS[:1], *CONFIG)
    image = oci.read_image(layout)
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
    image = oci.read_image(layout)
    blob = layout / "blobs" / image.layers[0].replace(":", "/")
    assert blob.stat().st_size < 200_000
    plain = gzip.decompress(blob.read_bytes())
    if how == "plain":
        blob.write_bytes(plain)
    elif how == "zstd":
        done = subprocess.run(["zstd", "-c"], input=plain, capture_output=True, check=True)
        blob.write_bytes(done.stdout)
    monkeypatch.setattr(oci, "LAYER", 5_000_000)
    with pytest.raises(Failure, match=r"layer 1: has more than 0\.005 GB; refused"):
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
        # A process with uid 0 could still end the guest's own services.
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


def test_the_trim_list_is_applied_and_recorded(layout: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    reference = f"oci:{layout}:{TAG}"
    chosen = recipe(reference, oci.local_digest(reference), trim=["/etc/m*", "/no/such"])
    quiet: list[str] = []  # of which a person sees one now and then
    made = server.build(chosen, tmp_path / "log", quiet.append, say=lines.append)
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
    layout: Path, tmp_path: Path
) -> None:
    large = [*LAYERS, [Entry("opt/lib/deep/er/x", random.Random(1).randbytes(2_000_000))]]
    reference = f"oci:{make_image(tmp_path / 'image', large, *CONFIG)}:{TAG}"
    chosen = recipe(reference, oci.local_digest(reference))
    small = chosen.model_copy(update={"budget": chosen.budget.model_copy(update={"server": 1})})
    for _ in range(2):  # a result of the cache too
        with pytest.raises(Failure) as caught:
            server.build(small, tmp_path / "log", lambda line: None)
        said = str(caught.value).splitlines()
        assert said[0].startswith("plain 2.5: packed it has 2.0 MB, allowed are 1 MB")
        assert "budget.plain.server in images.toml" in said[0]
        assert said[2].split() == ["/opt/lib/deep", "2.0", "MB"]
    made = server.build(chosen, tmp_path / "log", lambda line: pytest.fail(f"built again: {line}"))
    assert made.squashfs.stat().st_size > 2_000_000


@pytest.mark.parametrize(
    ("label", "reference", "wanted"),
    [
        ("1.18.0", "docker://x/y:z", "1.18.0"),
        ("v2 (beta)", "oci:/x", "0+v2.beta"),
        ("", "docker://opendap/hyrax:1.17.1", "1.17.1"),
        ("", "docker://127.0.0.1:5000/y:snapshot", "0+snapshot"),
        ("", "oci-archive:/home/me/hyrax:1.tar", "0123456789ab"),
        ("../../x", "oci:/x", "0+x"),
    ],
)
def test_the_version_is_fit_for_a_file_name(label: str, reference: str, wanted: str) -> None:
    image = oci.Image(
        digest="sha256:0123456789abcdef", entrypoint=[], environment={}, working_directory="/",
        user="", ports=[], volumes=[], labels={"version": label}, layers=[], diff_ids=[],
    )  # fmt: skip
    assert server.version(image, reference) == wanted


def test_a_hostile_image_is_refused_by_the_stage_and_leaves_nothing(
    tmp_path: Path, own_cache: Path
) -> None:
    layout = make_image(tmp_path / "bad", [[link("a", "b"), link("b", "a"), Entry("a/x")]], *CONFIG)
    with pytest.raises(Failure, match="circle"):
        built(f"oci:{layout}:{TAG}", tmp_path)
    assert [p for p in (own_cache / "stages/server").iterdir() if p.is_dir()] == []


def test_tar_module_reads_what_umoci_packed(layout: Path) -> None:
    """The control of these tests: the image really has two layers and a whiteout."""
    image = oci.read_image(layout)
    blob = layout / "blobs" / image.layers[1].replace(":", "/")
    with tarfile.open(blob) as tar:
        assert "opt/.wh.manual" in tar.getnames()
