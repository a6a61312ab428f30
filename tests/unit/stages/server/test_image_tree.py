"""Layers merged into one tree: whiteouts, links, owners, attributes, and hostile entries."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from hyraxvm.core.errors import Failure
from hyraxvm.stages.server import oci
from hyraxvm.stages.server.image_tree import Tree, merge
from tests.unit.stages.server.image_maker import (
    TAG,
    Entry,
    folder,
    hard,
    link,
    make_image,
    program,
    write_layer,
)

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000").decode()


def merged(tmp_path: Path, *layers: list[Entry]) -> Tree:
    return merge(
        [write_layer(tmp_path / f"layer {n}", entries) for n, entries in enumerate(layers)]
    )


def test_a_later_layer_replaces_and_adds(tmp_path: Path) -> None:
    tree = merged(
        tmp_path,
        [folder("etc/"), Entry("etc/a", b"1"), Entry("etc/b", b"1", mode=0o600)],
        [Entry("./etc/a", b"22", uid=7), Entry("/etc/c", b"3")],
    )
    assert tree.listing("/etc") == ["a", "b", "c"]
    assert (tree.read("/etc/a"), tree.read("/etc/c")) == (b"22", b"3")
    assert tree.nodes["etc/a"].info.uid == 7
    assert tree.size() == 4


def test_whiteouts_hide_what_lies_below_and_never_their_own_layer(tmp_path: Path) -> None:
    lower = [folder("d/"), Entry("d/old", b"x"), folder("d/sub/"), Entry("d/sub/x"), Entry("e")]
    tree = merged(
        tmp_path, lower, [Entry("d/new"), Entry("d/.wh.sub"), Entry("d/.wh.new"), Entry(".wh.e")]
    )
    assert sorted(tree.nodes) == ["d", "d/new", "d/old"]


def test_an_opaque_directory_keeps_itself_and_its_own_layers_files(tmp_path: Path) -> None:
    tree = merged(
        tmp_path,
        [folder("d/", mode=0o700, uid=5), Entry("d/old"), folder("d/sub/"), Entry("d/sub/x")],
        [Entry("d/new"), Entry("d/.wh..wh..opq")],
    )
    assert sorted(tree.nodes) == ["d", "d/new"]
    assert (tree.nodes["d"].info.mode, tree.nodes["d"].info.uid) == (0o700, 5)


def test_a_file_takes_a_directorys_place_and_the_other_way_round(tmp_path: Path) -> None:
    tree = merged(
        tmp_path,
        [folder("a/"), Entry("a/x"), Entry("b"), link("c", "a")],
        [Entry("a", b"file"), folder("b/"), Entry("b/y"), folder("c/")],
    )
    assert sorted(tree.nodes) == ["a", "b", "b/y", "c"]
    assert tree.nodes["c"].info.isdir()


def test_hard_links_share_their_content_and_outlive_each_other(tmp_path: Path) -> None:
    tree = merged(
        tmp_path,
        [program("bin/a", b"12345", mode=0o4755), hard("bin/b", "bin/a"), hard("z", "/bin/a")],
        [Entry("bin/.wh.a")],
    )
    assert tree.nodes["bin/b"] is tree.nodes["z"]
    assert tree.read("/z") == b"12345"
    assert tree.size() == 5


def test_a_path_through_a_link_stays_inside(tmp_path: Path) -> None:
    tree = merged(
        tmp_path,
        [
            folder("usr/lib/"),
            link("lib", "usr/lib"),
            link("up", "../../../usr"),
            link("abs", "/usr"),
        ],
        [Entry("lib/a"), Entry("up/b"), Entry("abs/c"), Entry("lib/.wh.nothing")],
    )
    assert {"usr/lib/a", "usr/b", "usr/c"} <= set(tree.nodes)
    assert tree.resolve("/up/lib/a") == "/usr/lib/a"
    assert tree.resolve("/abs/nothing") is None


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([Entry("../etc/passwd")], "leads out"),
        ([Entry("a/../../b")], "leads out"),
        ([Entry("a"), hard("b", "../../etc/shadow")], "leads out"),
        ([hard("b", "etc/shadow")], "is a hard link to 'etc/shadow', which is not a file"),
        ([folder("d/"), hard("b", "d")], "is a hard link to 'd', which is not a file"),
        ([link("a", "b"), link("b", "a"), Entry("a/x")], "loop of symbolic links"),
        ([Entry("a"), Entry("a/x")], "is not a directory"),
        ([Entry("../.wh.etc")], "leads out"),
    ],
    ids=["up", "down and up", "link out", "link nowhere", "link to dir", "circle", "file", "wh"],
)
def test_hostile_layers_are_refused(tmp_path: Path, entries: list[Entry], said: str) -> None:
    with pytest.raises(Failure, match=said):
        merged(tmp_path, entries)


def test_a_symbolic_link_out_and_an_entry_below_it_touch_nothing_of_the_host(
    tmp_path: Path,
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").write_text("x")
    tree = merged(
        tmp_path,
        [link("out", str(victim)), Entry("out/written", b"bad"), Entry("out/.wh.kept")],
    )
    assert [path.name for path in victim.iterdir()] == ["kept"]
    assert tree.read(f"{victim}/written") == b"bad"


def test_devices_are_left_out(tmp_path: Path) -> None:
    tree = merged(
        tmp_path,
        [Entry("dev/sda", kind=tarfile.BLKTYPE), Entry("dev/mem", kind=tarfile.CHRTYPE)],
    )
    assert (tree.nodes, tree.dropped_devices) == ({}, 2)


LAYERS = [
    [
        folder("usr/bin/", 0o751, 3, 4),
        program("usr/bin/su", b"s" * 5, 0o4755),
        program("usr/bin/wall", b"w", 0o2755),
        hard("usr/bin/also", "usr/bin/su"),
        folder("tmp/", 0o1777),
        link("bin", "usr/bin"),
        Entry("etc/shadow", b"x", 0o600, 0, 42),
        folder("var/cache/", 0o700, 101, 102),
        Entry("var/cache/old", b"o"),
        Entry("var/cache/sub/x", b"x"),
        folder("opt/"),
        Entry("opt/file", b"f"),
        folder("opt/place/"),
        Entry("opt/place/inside", b"i"),
        Entry("opt/fifo", kind=tarfile.FIFOTYPE),
        Entry("opt/noted", b"n", attributes={"user.note": "kept"}),
        link("opt/dangling", "/nowhere"),
    ],
    [
        # Through a link; beside a file that is removed; over a directory that stays.
        Entry("bin/new", b"n", 0o755),
        Entry("usr/bin/.wh.wall"),
        folder("var/cache/", 0o700, 101, 102),
        Entry("var/cache/.wh..wh..opq"),
        Entry("var/cache/fresh", b"1", 0o640, 101, 102),
        folder("opt/", 0o710, 7, 8),
        Entry("opt/.wh.place"),
        Entry("n\u00e4me", b"u"),
    ],
    [
        # One of two hard links gets new content, a file replaces a directory, a directory a file.
        Entry("usr/bin/also", b"alone", 0o755),
        hard("usr/bin/third", "usr/bin/su"),
        Entry("opt/place", b"now a file"),
        Entry("opt/.wh.file"),
        folder("etc/shadow.d/"),
        Entry("var/cache/sub/y", b"y"),
    ],
]


def described(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what is on a file system, in the form in which `nodes` describes a tree."""
    found: dict[str, tuple[object, ...]] = {}
    owned = os.geteuid() == 0
    for path in root.rglob("*"):
        info = path.lstat()
        content: object = None
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        mode = 0o777 if path.is_symlink() else stat.S_IMODE(info.st_mode)
        owner = (info.st_uid, info.st_gid) if owned else ()
        links = 1 if path.is_dir() else info.st_nlink
        found[str(path.relative_to(root))] = (
            stat.S_IFMT(info.st_mode),
            mode,
            owner,
            links,
            content,
        )
    return found


def test_layers_become_what_umoci_unpacks(tmp_path: Path) -> None:
    """umoci reads the specification independently, and unpacks onto a real file system."""
    layout = make_image(tmp_path / "image", LAYERS)
    options = [] if os.geteuid() == 0 else ["--rootless"]
    argv = ["umoci", "unpack", *options, "--image", f"{layout}:{TAG}", str(tmp_path / "bundle")]
    subprocess.run(argv, check=True, capture_output=True)
    expected = described(tmp_path / "bundle/rootfs")
    image = oci.read_image(layout, "amd64")
    tree = oci.flatten(layout, image, tmp_path / "scratch", lambda line: None)
    oci.squash(tree, tmp_path / "x.squashfs", tmp_path / "log")
    out = tmp_path / "out"
    argv = ["unsquashfs", "-q", "-no-progress", "-d", str(out), str(tmp_path / "x.squashfs")]
    subprocess.run(argv, check=os.geteuid() == 0, capture_output=True)
    assert described(out) == expected
    assert expected["usr/bin/su"][3:] == (2, b"sssss")
    assert os.getxattr(out / "opt/noted", "user.note") == b"kept"
    assert not {"usr/bin/wall", "var/cache/old", "var/cache/sub/x", "opt/file"} & set(expected)


def test_a_whiteout_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="hides nothing"):
        merged(tmp_path, [Entry("a")], [Entry(".wh.")])


def test_garbage_is_no_layer(tmp_path: Path) -> None:
    path = tmp_path / "layer 1"
    path.write_bytes(b"no tar" * 1000)
    with pytest.raises(Failure, match="layer 1: is not a readable tar"):
        merge([path])


@pytest.mark.parametrize(("said", "wanted"), [("inf", 2**32 - 1), ("-inf", 0), ("nan", 0)])
def test_times_that_are_none_become_some(tmp_path: Path, said: str, wanted: int) -> None:
    path = tmp_path / "layer"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"mtime": said}
        tar.addfile(info)
    sink = io.BytesIO()
    merge([path]).write_tar(sink)
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as tar:
        assert tar.getmember("a").mtime == wanted


@pytest.mark.parametrize("size", [-1, -512, -1024, -(2**40)])
@pytest.mark.parametrize("how", ["header", "pax"])
def test_negative_sizes_are_refused(tmp_path: Path, size: int, how: str) -> None:
    path = tmp_path / "layer 1"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            if how == "pax":
                info.pax_headers = {"size": str(size)}
            tar.addfile(info)
    if how == "header":
        info = tarfile.TarInfo("a")
        info.size = size
        # The form of GNU tar for numbers that do not fit into octal digits.
        with path.open("r+b") as stream:
            stream.write(info.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(Failure, match=r"layer 1: (the entry 'a' has a negative size|is not a re)"):
        merge([path])


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "layer", [Entry("a", b"1"), Entry("b", b"2"), Entry("c", b"3")])
    octets = bytearray(path.read_bytes())
    assert merge([path]).listing("") == ["a", "b", "c"]
    at = octets.index(b"b\0")
    for damaged in (at, at + 150):  # the name, the checksum
        path.write_bytes(octets[:damaged] + b"\7" + octets[damaged + 1 :])
        with pytest.raises(Failure, match=rf"not a readable tar \(the header at byte {at} is dam"):
            merge([path])
    path.write_bytes(octets[: at + 100])
    with pytest.raises(Failure, match=r"not a readable tar"):
        merge([path])
    path.write_bytes(octets[: octets.rindex(b"3") + 512])  # as umoci writes it
    assert merge([path]).listing("") == ["a", "b", "c"]


def test_the_root_is_no_directory_to_make() -> None:
    with pytest.raises(Failure, match="directory / cannot be made: it is the image's root"):
        Tree().make_dir("/", 1, 1)


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("/usr/share/doc", ["usr/share/doc", "usr/share/doc/a", "usr/share/doc/a/b"]),
        ("/usr/share/doc/*", ["usr/share/doc/a", "usr/share/doc/a/b"]),
        ("/usr/*", ["usr/lib", "usr/lib/jxyz", "usr/lib/java", "usr/share", "usr/share/doc",
                    "usr/share/doc/a", "usr/share/doc/a/b"]),
        ("/**/java", ["usr/lib/java"]),
        ("/usr/lib/j[!a]*", ["usr/lib/jxyz"]),
        ("/usr/lib/j??z", ["usr/lib/jxyz"]),
        ("/nothing", []),
    ],
)  # fmt: skip
def test_trimming(tmp_path: Path, pattern: str, gone: list[str]) -> None:
    tree = merged(
        tmp_path,
        [folder("usr/"), Entry("usr/lib/jxyz", b"1"), Entry("usr/lib/java", b"22"),
         Entry("usr/share/doc/a/b", b"333"), hard("kept", "usr/share/doc/a/b")],
    )  # fmt: skip
    before, size = set(tree.nodes), tree.size()
    paths, saved = tree.remove(pattern)
    assert before - set(tree.nodes) == set(gone)
    assert (paths, saved) == (len(gone), size - tree.size())
    assert tree.read("/kept") == b"333"


def test_everything_survives_in_the_squashfs_whoever_builds(tmp_path: Path) -> None:
    tree = merged(
        tmp_path,
        [
            folder("usr/bin/", mode=0o751, uid=3, gid=4),
            program("usr/bin/su", b"s" * 5, mode=0o6755),
            hard("usr/bin/also", "usr/bin/su"),
            Entry("usr/bin/ping", b"p", 0o755,
                  attributes={"security.capability": CAPABILITY, "user.note": "h\u00e9"}),
            Entry("n\u00e4me \udcff", b"q", uid=70000, gid=4_000_000_000),
            link("dangling", "/nowhere"),
            Entry("fifo", kind=tarfile.FIFOTYPE),
        ],
    )  # fmt: skip
    tree.make_dir("/var/lib/it", 101, 102, 0o750)
    tree.write("/etc/hosts", b"")
    image = tmp_path / "x.squashfs"
    oci.squash(tree, image, tmp_path / "log")
    argv = ["unsquashfs", "-lln", "-UTC", str(image)]
    listed = subprocess.run(argv, capture_output=True, check=True).stdout
    done_root = listed.splitlines()[0].split()
    rows = {
        line.split(b"squashfs-root/", 1)[1]: line.split()[:3] for line in listed.splitlines()[1:]
    }
    # Also the root directory, which has no entry: it has neither the builder's id nor today's date.
    assert done_root[:2] == [b"drwxr-xr-x", b"0/0"]
    assert done_root[3] == b"1970-01-01"
    assert rows[b"usr/bin"][:2] == [b"drwxr-x--x", b"3/4"]
    assert rows[b"usr/bin/su"] == [b"-rwsr-sr-x", b"0/0", b"5"]
    assert rows["n\u00e4me ".encode() + b"\xff"][1] == b"70000/4000000000"
    assert rows[b"dangling -> /nowhere"][0] == b"lrwxrwxrwx"
    assert rows[b"fifo"][0].startswith(b"p")
    assert rows[b"var/lib/it"][:2] == [b"drwxr-x---", b"101/102"]
    out = tmp_path / "out"
    argv = ["unsquashfs", "-q", "-no-progress", "-d", str(out), str(image), "usr"]
    subprocess.run(argv, capture_output=True, check=os.geteuid() == 0)
    assert (out / "usr/bin/su").stat().st_ino == (out / "usr/bin/also").stat().st_ino
    if os.geteuid() == 0:  # only root may set this attribute
        assert os.getxattr(out / "usr/bin/ping", "security.capability") == CAPABILITY.encode()
    again = tmp_path / "again.squashfs"
    oci.squash(tree, again, tmp_path / "log")
    assert again.read_bytes() == image.read_bytes()


def test_attributes_that_squashfs_cannot_hold_are_counted_and_left_out(tmp_path: Path) -> None:
    """The official Hyrax image is made with setfacl; some builders keep the ACLs."""
    acl = {"system.posix_acl_access": "\x02\0\0\0\udcff", "user.note": "kept"}
    tree = merged(
        tmp_path,
        [
            Entry("usr/share/a", b"1", attributes=acl),
            hard("usr/share/same", "usr/share/a"),
            Entry("usr/share/b", attributes={**acl, "system.posix_acl_default": "x"}),
        ],
    )
    assert tree.dropped_attributes() == {
        "system.posix_acl_access": 2,
        "system.posix_acl_default": 1,
    }
    oci.squash(tree, tmp_path / "x.squashfs", tmp_path / "log")
    out = tmp_path / "out"
    argv = ["unsquashfs", "-q", "-no-progress", "-d", str(out), str(tmp_path / "x.squashfs")]
    subprocess.run(argv, capture_output=True, check=True)
    assert os.listxattr(out / "usr/share/a") == ["user.note"]


def test_the_tar_is_the_same_for_the_same_tree(tmp_path: Path) -> None:
    entries = [folder("b/"), Entry("b/1"), Entry("a"), Entry("b.x")]
    tars = []
    for number, order in enumerate((entries, entries[::-1])):
        tree = merge([write_layer(tmp_path / f"{number}", order)])
        sink = io.BytesIO()
        tree.write_tar(sink)
        tars.append(sink.getvalue())
    assert tars[0] == tars[1]
    with tarfile.open(fileobj=io.BytesIO(tars[0])) as tar:
        assert tar.getnames() == ["a", "b", "b/1", "b.x"]
