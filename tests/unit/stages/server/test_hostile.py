"""An image never adds a line to a unit, whatever is in its configuration and files."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from hyraxvm.core.errors import Failure
from hyraxvm.stages.provision import guest_tar
from hyraxvm.stages.server import oci
from hyraxvm.stages.server import stage as server
from hyraxvm.stages.server.image_tree import Tree, merge
from tests.unit.stages.server.hyrax_image import LAYER as HYRAX_LAYER
from tests.unit.stages.server.hyrax_image import recipe as hyrax
from tests.unit.stages.server.image_maker import Entry, folder, link, program, write_layer
from tests.unit.stages.server.plain_image import recipe as plain

RUNS = "ExecStartPre=+/usr/bin/touch /owned"  # what a hostile image tries to add to a unit
ENDS = ["\n", "\r", "\r\n", "\\\n", " \n", '"\n', "'\n"]
PASSWD = b"serve:x:1234:1234::/:/bin/sh\n"
LAYER = [
    Entry("etc/passwd", PASSWD), program("opt/serve"), program("+/opt/serve"),
    program("opt/a b"), folder(f"opt/x\n{RUNS}/"), link("state", f"/opt/x\n{RUNS}"),
]  # fmt: skip
GOOD = {"Entrypoint": ["/opt/serve"], "User": "serve"}


def layout_of(work: Path, **config: Any) -> Path:
    """Make a layout with this configuration and without layers, for `read_image`."""
    layout = work / "layout"

    def blob(content: object) -> str:
        data = json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        path = layout / "blobs/sha256" / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return f"sha256:{digest}"

    whole = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}, "config": config}
    manifest = blob({"config": {"digest": blob(whole)}, "layers": []})
    (layout / "index.json").write_text(json.dumps({"manifests": [{"digest": manifest}]}))
    return layout


def tree_of(work: Path, layer: list[Entry]) -> Tree:
    return merge([write_layer(work / "layer", layer)])


def described(work: Path, layer: list[Entry] = LAYER, **config: Any) -> server.ServerImage:
    image = oci.read_image(layout_of(work, **{**GOOD, **config}), "amd64")
    return server.describe(plain("oci:/x", ""), image, tree_of(work, layer), {}, [])


def lines(text: str) -> list[str]:
    """Return the lines that systemd sees."""
    return re.split("[\n\r\0]", text)


@pytest.mark.parametrize("end", ENDS)
def test_no_value_becomes_a_line_of_the_unit(tmp_path: Path, end: str) -> None:
    """Free text is quoted: every line of the unit is a line of the template."""
    chosen = plain("oci:/x", "")
    calm = guest_tar.render_units(chosen, described(tmp_path / "calm"))["hyrax-server.service"]
    bad = f"x{end}{RUNS}"
    image = described(
        tmp_path / "bad",
        Entrypoint=["/opt/serve", bad, ";", "+/bin/sh", "%h$HOME"],
        Env=[f"A={bad}", f"B{bad}=%h", bad],
        Labels={"version": bad, bad: bad},
    )
    unit = guest_tar.render_units(chosen, image)["hyrax-server.service"]
    wanted = [line.partition("=")[0] for line in lines(calm)]
    got = [line for line in lines(unit) if not line.startswith('Environment="')]
    assert [line.partition("=")[0].partition(" 0+")[0] for line in got] == [
        line.partition(" 0+")[0] for line in wanted
    ]
    assert len(lines(unit)) == len(lines(calm)) + 3
    # Each argument stays one word, and nothing in it is expanded.
    (command,) = [line for line in lines(unit) if line.startswith("ExecStart=")]
    words = re.findall(r'"(?:[^"\\]|\\.)*"', command)
    assert command == f"ExecStart={' '.join(words)}"
    assert words[2:] == ['";"', '"+/bin/sh"', '"%%h$$HOME"']


@pytest.mark.parametrize(
    ("config", "said"),
    [
        *[({"WorkingDir": f"/{end}{RUNS}"}, "working directory") for end in ENDS],
        *[({"Volumes": {f"/data{end}{RUNS}": {}}}, "volume") for end in ENDS],
        ({"WorkingDir": "/%h"}, "working directory '/%h' is refused; expected: an absolute path"),
        ({"WorkingDir": "~"}, "working directory"),
        ({"WorkingDir": "-/opt"}, "working directory"),
        ({"WorkingDir": "/opt/../../x"}, "working directory"),
        ({"Volumes": {"/a b": {}}}, "volume"),
        ({"Volumes": {"+/etc": {}}}, "volume"),
        ({"Volumes": {"/state": {}}}, "directory to write in"),
        ({"Volumes": {"/": {}}}, "directory / cannot be made: "),
        ({"Entrypoint": ["serve"], "Env": ["PATH=+/opt"]}, "no program"),
        ({"Entrypoint": ["/opt/a b"]}, "program '/opt/a b' is refused"),
        ({"Entrypoint": ["/opt/serve", "a\0b"]}, "holds a NUL"),
        ({"Env": ["A=\0"]}, "holds a NUL"),
        ({"Env": ["A=\ud800"]}, "configuration is damaged"),
        ({"Env": [1]}, "configuration is damaged"),
        ({"Env": 7}, "configuration is damaged"),
        ({"Labels": {"a": None}}, "configuration is damaged"),
        ({"ExposedPorts": {"x/tcp": {}}}, "configuration is damaged"),
        ({"WorkingDir": 7}, "configuration is damaged"),
        ({"User": f"serve\n{RUNS}"}, "does not list the user"),
        ({"User": "\u00b2"}, "does not list the user"),
        ({"User": "99999999999"}, "has the id '99999999999'; expected: a number below 4294967295"),
    ],
)
def test_what_stands_in_a_unit_as_it_is_must_be_plain(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(Failure, match=said) as caught:
        described(tmp_path, **config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("passwd", "said"),
    [
        (b"serve:x:12x:5::/:/bin/sh\n", "account 'serve' has the id '12x'; expected: a number"),
        (b"serve:x:-5:5::/:/bin/sh\n", "has the id '-5'"),
        (b"serve:x:4294967295:5::/:/bin/sh\n", "has the id '4294967295'"),
        (b"serve\r:x:5:5::/:/bin/sh\n", "does not list the user"),
    ],
)
def test_ids_that_are_none_are_told(tmp_path: Path, passwd: bytes, said: str) -> None:
    with pytest.raises(Failure, match=said):
        described(tmp_path, [Entry("etc/passwd", passwd), program("opt/serve")])


def test_a_relative_program_is_found_from_the_working_directory(tmp_path: Path) -> None:
    image = described(tmp_path, Entrypoint=["./serve"], WorkingDir="/opt/")
    assert image.entrypoint == ["/opt/serve"]
    assert image.working_directory == "/opt/"
    # Never with a sign before the path, to which systemd would give a meaning.
    assert described(tmp_path, Entrypoint=["+/opt/serve"]).entrypoint == ["/+/opt/serve"]


# ------------------------------------------------------------- what Hyrax's own folder reads

TOMCAT = f"opt/x\n{RUNS}"


def moved(start: str, to: str) -> list[Entry]:
    """Return the layer of Hyrax's image with everything below `start` moved to `to`."""
    return [
        Entry(**{**vars(entry), "name": to + entry.name.removeprefix(start)})
        if entry.name.startswith(start)
        else entry
        for entry in HYRAX_LAYER
    ]


def conf(line: str) -> list[Entry]:
    text = f"BES.User=bes\nBES.Group=bes\n{line}\n".encode()
    return [Entry(e.name, text) if e.name == "etc/bes/bes.conf" else e for e in HYRAX_LAYER]


@pytest.mark.parametrize(
    ("layer", "env", "said"),
    [
        (moved("usr/bin/besdaemon", f"opt/x\n{RUNS}/besdaemon"), [], "program .* is refused"),
        (moved("etc/bes/", f"opt/x\n{RUNS}/bes/"), [], "file .* is refused"),
        (conf("BES.ServerPort=1 ; +/usr/bin/touch /owned"), [], "which is not a port"),
        (conf("BES.ServerPort=$(touch /owned)"), [], "which is not a port"),
        ([*HYRAX_LAYER, link("tom\ncat", "/usr/share/tomcat")], ["CATALINA_HOME=/tom\ncat"],
         "directory .* is refused"),
        ([*HYRAX_LAYER, link("cat", "/usr/share/tomcat")], ["CATALINA_HOME=/cat%h"],
         "no directory"),
        ([*HYRAX_LAYER, program("$(id)/bin/java")], ["JAVA_HOME=/$(id)"], "Java .* is refused"),
        ([*HYRAX_LAYER, Entry("o x/olfs.xml", b"<a/>")], ["OLFS_CONFIG_DIR=/o x"],
         "file .* is refused"),
        ([*(e for e in HYRAX_LAYER if not e.name.endswith("olfs.xml")),
          Entry("etc/olfs/olfs.xml", b'<O><ClientPool maximum="many"/></O>')], [],
         "olfs.xml: invalid literal"),
        ([Entry(e.name, b"bes:x:998:996:\xff:/:/x\ntomcat:x:1000:1000::/:/x\n")
          if e.name == "etc/passwd" else e for e in HYRAX_LAYER], [], ""),
    ],
)  # fmt: skip
def test_what_is_read_from_files_must_be_plain_too(
    tmp_path: Path, layer: list[Entry], env: list[str], said: str
) -> None:
    home = [] if any("CATALINA" in one for one in env) else ["CATALINA_HOME=/usr/share/tomcat"]
    image = oci.read_image(layout_of(tmp_path, Env=[*home, *env]), "amd64")
    tree = tree_of(tmp_path, layer)
    if not said:
        assert server.describe(hyrax(), image, tree, {}, []).uid == 998
        return
    with pytest.raises(Failure, match=said) as caught:
        server.describe(hyrax(), image, tree, {}, [])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ENDS)
def test_the_environment_of_a_hyrax_image_is_only_its_own_processes(
    tmp_path: Path, end: str
) -> None:
    """The BES's unit runs a command in the guest as root: it must not get the image's variables."""
    calm = ["CATALINA_HOME=/usr/share/tomcat"]
    bad = ["LD_PRELOAD=/opt/hyrax/evil.so", "PATH=/opt/hyrax/evil", f"A=x{end}{RUNS}", "-S=x", "=x"]
    found = []
    for number, env in enumerate([calm, [*calm, *bad]]):
        work = tmp_path / str(number)
        image = oci.read_image(layout_of(work, Env=env), "amd64")
        made = server.describe(hyrax(), image, tree_of(work, HYRAX_LAYER), {}, [])
        found.append(guest_tar.render_units(hyrax(), made))
    for name, text in found[1].items():
        got = [line.partition("=")[0] for line in lines(text) if 'Environment="' not in line]
        assert got == [
            line.partition("=")[0] for line in lines(found[0][name]) if 'Environment="' not in line
        ]
    bes = lines(found[1]["hyrax-bes.service"])
    assert [line for line in bes if line.startswith(("Environment", "PassEnvironment"))] == []
    (command,) = [line for line in bes if line.startswith("ExecStart=")]
    assert '"LD_PRELOAD=/opt/hyrax/evil.so"' in command
    assert command.startswith('ExecStart=/usr/bin/env -- "A=x')
    assert '"-S' not in command
    assert '"="' not in command
