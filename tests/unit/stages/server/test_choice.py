"""Which server is built, and from which image: named, pinned, or the first one available."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from hyraxvm.config import images
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.stages.server import choice, oci
from hyraxvm.stages.server import stage as server
from tests.unit.stages.server.image_maker import (
    TAG,
    Entry,
    copy_image,
    make_image,
    program,
    push_index,
)
from tests.unit.stages.server.plain_image import CONFIG, LAYERS, hyrax_from, listed, recipe


def test_a_pinned_image_is_pulled_once_and_by_its_digest(
    results: StageCache,
    layout: Path,
    tmp_path: Path,
    registry: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tagged = f"docker://{registry}/made/plain:1"
    copy_image(layout, tagged)
    lock = tmp_path / "images.lock"
    table = with_source(tagged)
    digest = choice.pin(table, "plain", lock).digest
    # The tag moves; the pinned image does not.
    other = make_image(tmp_path / "other", [*LAYERS, [Entry("etc/moved")]], *CONFIG)
    copy_image(other, tagged)
    said: list[str] = []
    chosen = choice.choose(results, table, "plain", None, said.append, lock)
    assert (chosen.image, chosen.digest, chosen.notice, said) == (tagged, digest, (), [])
    place = recipe(tagged, digest)
    made = server.build(results, place, server.key(place), tmp_path / "log", lambda line: None)
    assert "etc/moved" not in listed(made.squashfs)
    assert made.image.image_digest == digest
    # Once the image is in the cache, no registry is needed.
    monkeypatch.setattr(oci, "remote_digest", lambda *a: pytest.fail("asked the registry"))
    assert choice.choose(results, table, "plain", None, said.append, lock) == chosen
    oci.pull(
        results, tagged, digest, "amd64", tmp_path / "log", lambda line: pytest.fail("pulled again")
    )


def test_the_first_build_pins_and_says_so(
    results: StageCache, layout: Path, tmp_path: Path, registry: str
) -> None:
    tagged = f"docker://{registry}/made/first:1"
    copy_image(layout, tagged)
    lock = tmp_path / "images.lock"
    said: list[str] = []
    chosen = choice.choose(results, with_source(tagged), None, None, said.append, lock)
    assert json.loads(lock.read_text())["plain"]["digest"] == chosen.digest
    assert chosen.digest in said[0]


def test_a_lock_for_another_tag_is_refused(results: StageCache, tmp_path: Path) -> None:
    lock = tmp_path / "images.lock"
    lock.write_text('{"plain": {"source": "docker://made/plain:0", "digest": "sha256:0"}}')
    with pytest.raises(UserError, match=r"pins docker://made/plain:0 .* type: ./inv pin plain"):
        choice.choose(results, with_source("docker://made/plain:1"), "plain", None, print, lock)
    lock.write_text("{not json")
    with pytest.raises(UserError, match="cannot be read"):
        choice.choose(results, with_source("docker://made/plain:1"), None, None, print, lock)


def test_auto_falls_back_with_a_notice_and_a_named_server_never_does(
    results: StageCache, tmp_path: Path
) -> None:
    dead = with_source("docker://127.0.0.1:1/made/plain:1")
    lock = tmp_path / "images.lock"
    chosen = choice.choose(results, dead, None, None, print, lock)
    assert (chosen.server, chosen.image) == ("dapdir", "")
    shown = choice.banner(chosen.notice)
    assert "NOT a plain server" in shown
    assert "connection refused" in shown
    assert "dapdir (embedded default, not Hyrax)" in shown
    assert "--server-image oci-archive:FILE" in shown
    assert len({len(line) for line in shown.splitlines()}) == 1
    with pytest.raises(Failure, match="connection refused"):
        choice.choose(results, dead, "plain", None, print, lock)
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
    results: StageCache, layout: Path, tmp_path: Path, registry: str
) -> None:
    name = f"docker://{registry}/made/tags"
    for tag in ("1.17.1-9-el9", "1.18.0-2-el9", "1.18.0-10-el9", "snapshot"):
        copy_image(layout, f"{name}:{tag}")
    lock = tmp_path / "images.lock"
    said = f"{name}:1.18.0: there is no such tag; it has 1.18.0-2-el9, 1.18.0-10-el9"
    # Nor does `auto` fall back: the registry does answer, so the table is wrong.
    for server_name in ("plain", None):
        with pytest.raises(UserError) as caught:
            choice.choose(results, with_source(f"{name}:1.18.0"), server_name, None, print, lock)
        assert str(caught.value) == said
    with pytest.raises(UserError, match=r"it has snapshot, 1\.17\.1-9-el9, "):
        choice.pin(with_source(f"{name}:2"), "plain", lock)
    assert not lock.exists()


def test_pinning_again_takes_what_the_tag_has_become(
    layout: Path, tmp_path: Path, registry: str
) -> None:
    tagged = f"docker://{registry}/made/again:1"
    copy_image(layout, tagged)
    lock = tmp_path / "images.lock"
    lock.write_text('{"other": {"source": "docker://x/y:1", "digest": "sha256:1"}}')
    first = choice.pin(with_source(tagged), "plain", lock).digest
    copy_image(make_image(tmp_path / "other", [[program("opt/serve")]], *CONFIG), tagged)
    second = choice.pin(with_source(tagged), "plain", lock).digest
    assert first != second
    kept = json.loads(lock.read_text())
    assert kept["plain"] == {"source": tagged, "digest": second}
    assert kept["other"]["digest"] == "sha256:1"
    assert [path.name for path in tmp_path.glob("*images.lock*")] == ["images.lock"]


EL8 = (
    "--config.env=HYRAX_VERSION=1.17.1-9",
    "--config.env=TOMCAT_VERSION=9.0.64",
    "--config.env=java_version=java-17-openjdk",
)
EL9 = (
    "--config.env=HYRAX_VERSION=snapshot",
    "--config.label=org.opendap.hyrax.version=1.18.0-12",
    "--config.env=TOMCAT_VERSION=11.0.7",
    "--config.env=java_version=java-21-openjdk",
    "--config.env=TARGET_OS=el9",
)


def test_a_tag_can_be_pinned_that_the_table_does_not_name(
    results: StageCache, tmp_path: Path, registry: str
) -> None:
    name = f"docker://{registry}/made/hyrax"
    for tag, config in (("latest", EL8), ("1.18.0-12-el9", EL9)):
        copy_image(make_image(tmp_path / tag, [[Entry(f"etc/{tag}")]], *config), f"{name}:{tag}")
    table, lock = hyrax_from(f"{name}:latest"), tmp_path / "images.lock"
    assert choice.pin(table, "hyrax", lock).stated == {
        "version": "1.17.1-9",
        "Tomcat": "9.0.64",
        "Java": "java-17-openjdk",
        "operating system": "el8 (its TARGET_OS is not set)",
    }
    assert choice.choose(results, table, "hyrax", None, print, lock).image == f"{name}:latest"
    pinned = choice.pin(table, "hyrax", lock, "1.18.0-12-el9")
    assert pinned.reference == f"{name}:1.18.0-12-el9"
    assert pinned.stated == {
        "version": "1.18.0-12",
        "Tomcat": "11.0.7",
        "Java": "java-21-openjdk",
        "operating system": "el9",
    }
    chosen = choice.choose(results, table, "hyrax", None, print, lock)
    assert (chosen.image, chosen.digest) == (pinned.reference, pinned.digest)
    assert choice.cached(table, "hyrax", lock) == chosen
    with pytest.raises(UserError, match=r"':x' is not a tag; expected: .* 1\.18\.0-12-el9"):
        choice.pin(table, "hyrax", lock, ":x")
    # The table's own tag again.
    choice.pin(table, "hyrax", lock)
    assert choice.choose(results, table, "hyrax", None, print, lock).image == f"{name}:latest"


def test_an_index_of_several_architectures_is_pinned_as_a_whole(
    results: StageCache, tmp_path: Path, registry: str
) -> None:
    own = make_image(tmp_path / "own", [LAYERS[0], [Entry("etc/amd64")]], *CONFIG, *EL9)
    arm = make_image(tmp_path / "arm", [[Entry("etc/arm64")]], *CONFIG, *EL8, arch="arm64")
    reference = f"docker://{registry}/made/index:1"
    digest = push_index(tmp_path / "index", reference, {"arm64": arm, "amd64": own})
    table, lock = hyrax_from(reference), tmp_path / "images.lock"
    pinned = choice.pin(table, "hyrax", lock)
    assert (pinned.digest, pinned.stated["Tomcat"]) == (digest, "11.0.7")
    layout = oci.pull(results, reference, digest, "amd64", tmp_path / "log", lambda line: None)
    names = oci.flatten(
        layout, oci.read_image(layout, "amd64"), tmp_path / "tars", lambda line: None
    ).nodes
    assert "etc/amd64" in names and "etc/arm64" not in names
    lock.unlink()
    push_index(tmp_path / "arm-only", reference, {"arm64": arm})
    with pytest.raises(Failure, match=r"no image found .* architecture .?amd64") as caught:
        choice.pin(table, "hyrax", lock)
    assert "\n" not in str(caught.value)
    assert not lock.exists()


def test_an_image_of_a_registry_can_be_named_on_the_command_line(
    results: StageCache, layout: Path, registry: str
) -> None:
    tagged = f"docker://{registry}/made/named:1"
    copy_image(layout, tagged)
    chosen = choice.choose(results, with_source("docker://made/plain:1"), None, tagged, print)
    assert (chosen.server, chosen.image) == ("plain", tagged)
    assert chosen.digest == oci.remote_digest(tagged)
    named = oci.with_digest(tagged, chosen.digest)
    assert (
        choice.choose(results, with_source("docker://x/y:1"), None, named, print).digest
        == chosen.digest
    )


def with_source(reference: str) -> images.Config:
    """Return the table with one more server, `plain`, which is preferred."""
    table = images.load()
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
        (None, "docker://-x", "is not the name of an image; expected: docker://NAME:TAG"),
        ("dapdir", "oci:/etc", "--server must be: hyrax"),
        ("nope", "oci:/etc", "there is no server 'nope'"),
    ],
)
def test_a_wrong_reference_is_one_line(
    results: StageCache, server_name: str | None, reference: str, said: str
) -> None:
    with pytest.raises(UserError) as caught:
        choice.choose(results, images.load(), server_name, reference, print)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_on_the_command_line_goes_to_the_server_that_is_wanted_first(
    results: StageCache,
    layout: Path,
) -> None:
    chosen = choice.choose(results, images.load(), None, f"oci:{layout}:{TAG}", print)
    assert (chosen.server, chosen.image) == ("hyrax", f"oci:{layout}:{TAG}")
    assert chosen.digest.startswith("sha256:")
