"""Images with damaged parts end in one line, within their limits of size and time."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from hyraxvm.core.errors import Failure
from hyraxvm.stages.server import embedded, inventory, oci
from hyraxvm.stages.server import stage as server
from hyraxvm.stages.server.image_tree import Tree, merge
from tests.unit.stages.server.image_maker import Entry, folder, hard, link, program, write_layer
from tests.unit.stages.server.plain_image import recipe
from tests.unit.stages.server.raw_tar import END, blocks, header


def layout_of(work: Path, *packed: bytes, unpacked: bytes = b"", **more: Any) -> Path:
    """Make a layout with layers of these bytes; `more` are the configuration's other keys."""
    layout = work / "layout"

    def blob(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = layout / "blobs/sha256" / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return f"sha256:{digest}"

    diff = f"sha256:{hashlib.sha256(unpacked).hexdigest()}"
    whole = {"os": "linux", "rootfs": {"diff_ids": [diff] * len(packed)}, **more}
    manifest = {
        "config": {"digest": blob(json.dumps(whole).encode())},
        "layers": [{"digest": blob(data)} for data in packed],
    }
    entry = {"digest": blob(json.dumps(manifest).encode())}
    (layout / "index.json").write_text(json.dumps({"manifests": [entry]}))
    return layout


def flattened(layout: Path) -> Tree:
    image = oci.read_image(layout, "amd64")
    return oci.flatten(layout, image, layout.with_name("scratch"), lambda line: None)


GOOD = header("etc/motd", 3) + blocks(b"hi\n") + END
ZSTD = subprocess.run(["zstd", "-q"], input=GOOD, capture_output=True, check=True).stdout


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (flip(gzip.compress(GOOD), 12), r"layer 1: gzip: exit status 1: gzip: stdin: "),
        (gzip.compress(GOOD)[:-9], r"layer 1: gzip: exit status 1: gzip: stdin: unexpected end"),
        (gzip.compress(GOOD) + b"more", r"layer 1: gzip: exit status 2: .*trailing garbage"),
        (zlib.compress(GOOD), r"layer 1: its content is sha256:"),
        (flip(ZSTD, 8), r"layer 1: zstd: exit status 1: "),
        (ZSTD[:-9], r"layer 1: zstd: exit status 1: "),
        (GOOD[:-1], r"layer 1: its content is sha256:"),
    ],
    ids=["gzip", "gzip cut", "gzip and more", "zlib", "zstd", "zstd cut", "plain cut"],
)
def test_damaged_compression_is_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(Failure, match=said) as caught:
        flattened(layout_of(tmp_path, data, unpacked=GOOD))
    assert "\n" not in str(caught.value)


def test_all_layers_together_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci, "LAYERS", 3 * len(GOOD))
    data = gzip.compress(GOOD)
    assert flattened(layout_of(tmp_path / "3", data, data, data, unpacked=GOOD)).size() == 3
    with pytest.raises(Failure, match=r"layer 4: has more than .* GB with those below it; refused"):
        flattened(layout_of(tmp_path / "4", data, data, data, data, unpacked=GOOD))
    with pytest.raises(Failure, match="the image has 501 layers; must be at most 500"):
        flattened(layout_of(tmp_path / "501", *[data] * 501, unpacked=GOOD))


def test_each_tool_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci, "UNPACKING", 0.2)
    monkeypatch.setattr(oci, "PACKING", 0.2)
    slow = tmp_path / "bin"
    slow.mkdir()
    for name in ("gzip", "zstd", "tar2sqfs"):
        (slow / name).write_text("#!/bin/sh\nexec sleep 100\n")
        (slow / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow}:/usr/bin:/bin")
    for name, data in (("gzip", gzip.compress(GOOD)), ("zstd", ZSTD)):
        with pytest.raises(Failure, match=f"layer 1: {name}: not done after 0 s"):
            flattened(layout_of(tmp_path / name, data, unpacked=GOOD))
    # More than a pipe holds: without a reader the writer would wait for ever.
    tree = merge([write_layer(tmp_path / "layer", [Entry("a", bytes(10**6))])])
    with pytest.raises(Failure, match="tar2sqfs: not done after 0 s"):
        oci.squash(tree, tmp_path / "x.squashfs", tmp_path / "log")


def test_a_tool_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"^tar2sqfs: exit status 1: .*No such file") as caught:
        oci.squash(Tree(), tmp_path / "none/x.squashfs", tmp_path / "log")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "configuration is damaged: maximum recursion"),
        ('{"manifests": [' + '{"a":' * 100_000, "configuration is damaged: maximum recursion"),
        ("1" * 10_000, "configuration is damaged: Exceeds the limit"),
        ("[]", "configuration is damaged"),
        ('{"manifests": [{"digest": 7}]}', "configuration is damaged"),
        ('{"manifests": [{"digest": "sha256:../../x"}]}', "is not a SHA-256 digest"),
        (" " * 5 * 2**20, "is longer than 4194304 bytes; refused"),
        (b"\xff\xfe", "configuration is damaged"),
    ],
    ids=["list", "object", "number", "no object", "no text", "no digest", "long", "no UTF-8"],
)
def test_an_index_that_is_none_is_one_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    (tmp_path / "index.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Failure, match=said) as caught:
        oci.read_image(tmp_path, "amd64")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ([Entry("etc")], "file /etc/hosts cannot be written: 'etc' leads through 'etc', which is"),
        ([link("etc", "etc")], "'etc' leads into a loop of symbolic links"),
        ([link("tmp", "/nowhere/../tmp")], "directory /tmp cannot be made: .* loop of symbolic"),
        ([Entry("proc", b"file")], "directory /proc cannot be made"),
        ([folder("etc/hosts/")], ""),
        ([hard("etc/hosts", "opt/serve")], ""),
    ],
)
def test_odd_trees_are_one_line(tmp_path: Path, layer: list[Entry], said: str) -> None:
    layout = layout_of(tmp_path, config={"Entrypoint": ["/opt/serve"]})
    image = oci.read_image(layout, "amd64")
    tree = merge([write_layer(tmp_path / "layer", [program("opt/serve"), *layer])])
    if not said:
        assert server.describe(recipe("oci:/x", ""), image, tree, {}, []).uid == embedded.UID
        return
    with pytest.raises(Failure, match=said) as caught:
        server.describe(recipe("oci:/x", ""), image, tree, {}, [])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ([Entry("var/lib/dpkg/status", b"Package: a\nStatus: install ok installed\n")],
         "the image's /var/lib/dpkg: a package has no field 'Version'"),
        ([Entry("var/lib/dpkg/status.d/a", b"Package:\nVersion: 1\n")], ""),
        ([Entry("lib/apk/db/installed", b"P:x\n" * 200_000)], ""),
        ([Entry("etc/os-release", bytes(65 * 2**20))], "os-release has 68 MB; must be at most 67"),
        ([Entry("var/lib/rpm/Packages", b"not a database")], "rpm"),
        ([folder(".dist-info/"), folder("x.dist-info/")], ""),
    ],
)  # fmt: skip
def test_damaged_databases_are_one_line(tmp_path: Path, layer: list[Entry], said: str) -> None:
    tree = merge([write_layer(tmp_path / "layer", layer)])
    if not said:
        assert inventory.packages(tree, tmp_path / "scratch") == {}
        return
    with pytest.raises(Failure, match=said):
        inventory.packages(tree, tmp_path / "scratch")
