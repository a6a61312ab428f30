"""What users have reported of DAP servers, each with others of its kind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
from dapdir.names import MAX_NAME
from pydap.client import open_url

from tests.unit.dapdir.running import Server

Fill = Callable[[h5py.File], Any]


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("field") / "root"
    root.mkdir()
    server = Server(root, root.parent / "log")
    yield server
    server.stop()


def hdf5(server: Server, name: str, fill: Fill, first: bool = True) -> str:
    """Make an HDF5 file with a good variable `ok` and what `fill` adds; return its URL."""
    with h5py.File(server.root / name, "w") as file:
        if first:
            file["ok"] = np.arange(3.0)
        fill(file)
    return f"{server.url}/{name}"


def test_many_small_variables_are_read_at_once(field: Server) -> None:
    """netCDF-C asks for all of them in one URL of 12 kB."""
    with netCDF4.Dataset(field.root / "track.nc", "w") as file:
        file.createDimension("t", 4)
        file.createVariable("t", "f8", ("t",))[:] = np.arange(4)
        for number in range(300):
            name = f"v{number:04d}_of_the_satellite"
            file.createVariable(name, "f4", ("t",))[:] = number + np.arange(4)
    with netCDF4.Dataset(f"{field.url}/track.nc") as remote:
        for number in (0, 150, 299):
            values = remote[f"v{number:04d}_of_the_satellite"][:]
            assert values.tolist() == [number, number + 1, number + 2, number + 3]


def test_a_url_longer_than_httptools_splits(field: Server) -> None:
    with netCDF4.Dataset(field.root / "long.nc", "w") as file:
        file.createDimension("t", 2)
        for number in range(400):
            file.createVariable(f"{'x' * 190}_{number:04d}", "i4", ("t",))[:] = [number, -number]
    with netCDF4.Dataset(f"{field.url}/long.nc") as remote:
        assert remote[f"{'x' * 190}_0399"][:].tolist() == [399, -399]


def low_level(make: Callable[[], h5py.h5t.TypeID]) -> Fill:
    def fill(file: h5py.File) -> None:
        h5py.h5d.create(file.id, b"odd", make(), h5py.h5s.create_simple((3,)))

    return fill


def of_size(kind: h5py.h5t.TypeID, size: int) -> h5py.h5t.TypeID:
    kind = kind.copy()
    kind.set_size(size)
    return kind


ODD: dict[str, Fill] = {
    "float16": lambda f: f.create_dataset("odd", data=np.arange(3, dtype="f2")),
    "long double": lambda f: f.create_dataset("odd", data=np.arange(3, dtype="g")),
    "complex": lambda f: f.create_dataset("odd", data=np.zeros(3, "c8")),
    "compound": lambda f: f.create_dataset("odd", data=np.zeros(3, [("a", "f4"), ("b", "i2")])),
    "opaque": lambda f: f.create_dataset("odd", data=np.zeros(3, "V5")),
    "array": lambda f: f.create_dataset("odd", (3,), np.dtype(("f4", (2,)))),
    "ragged": lambda f: f.create_dataset("odd", (3,), h5py.vlen_dtype("f4")),
    "reference": lambda f: f.create_dataset("odd", (3,), h5py.ref_dtype),
    "region": lambda f: f.create_dataset("odd", (3,), h5py.regionref_dtype),
    "bits": low_level(lambda: h5py.h5t.STD_B8LE.copy()),
    "16 octets": low_level(lambda: of_size(h5py.h5t.STD_I64LE, 16)),
    "external": lambda f: f.create_dataset(
        "odd", (3,), "u1", external=[("/etc/passwd", 0, 3)]
    ),
    "external beside it": lambda f: f.create_dataset(
        "odd", (3,), "u1", external=[("raw.bin", 0, 3)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_a_type_that_cannot_be_served_is_named(field: Server, kind: str) -> None:
    (field.root / "raw.bin").write_bytes(b"abc")
    name = f"odd-{kind.replace(' ', '-')}.h5"
    url = hdf5(field, name, ODD[kind])
    with netCDF4.Dataset(url) as remote:
        assert remote["ok"][:].tolist() == [0, 1, 2]
        assert "odd" not in remote.variables
        assert remote.dapdir_omitted.split(" ")[0] == "odd"
    assert b"root" not in field.get(f"/{name}.dods").body


def test_a_virtual_dataset_does_not_lead_to_other_files(field: Server, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.arange(3.0)
    layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "x", shape=(3,))
    url = hdf5(field, "virtual.h5", lambda f: f.create_virtual_dataset("odd", layout))
    with netCDF4.Dataset(url) as remote:
        assert remote.dapdir_omitted == "odd (its values are in another file)"


def cycle(group: h5py.Group, name: str, target: h5py.Group | h5py.SoftLink) -> None:
    made = group.create_group("a")
    made[name] = target
    if isinstance(target, h5py.Group) and target != group:
        target["back"] = made


LINKS: dict[str, tuple[Fill, str]] = {
    "itself": (lambda f: cycle(f, "loop", f.create_group("b").create_group("c").parent),
               "holds itself"),
    "root": (lambda f: cycle(f, "root", f["/"]), "holds itself"),
    "soft": (lambda f: cycle(f, "soft", h5py.SoftLink("/a")), "holds itself"),
    "soft root": (lambda f: cycle(f, "soft", h5py.SoftLink("/")), "holds itself"),
    "external": (lambda f: f.__setitem__("e", h5py.ExternalLink("good.h5", "/ok")),
                 "leads to another file"),
    "cycle": (lambda f: f.__setitem__("e", h5py.ExternalLink("links-cycle.h5", "/")),
              "leads to another file"),
    "dangling": (lambda f: f.__setitem__("s", h5py.SoftLink("/nowhere")), "leads nowhere"),
    "long name": (lambda f: f.__setitem__("n" * 300, np.arange(3.0)), "a name of 300 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LINKS)
def test_links_that_netcdf_c_must_not_follow(field: Server, kind: str) -> None:
    fill, words = LINKS[kind]
    name = f"links-{kind.replace(' ', '-')}.h5"
    hdf5(field, name, fill)
    answer = field.get(f"/{name}.dds")
    assert answer.status == 500
    assert words in answer.text


def test_links_to_the_same_data_are_followed(field: Server) -> None:
    def fill(file: h5py.File) -> None:
        file.create_group("a")["x"] = np.arange(3.0)
        file["b"], file["soft"], file["hard"] = file["a"], h5py.SoftLink("/ok"), file["ok"]

    with netCDF4.Dataset(hdf5(field, "twice.h5", fill)) as remote:
        for name in ("a_x", "b_x", "soft", "hard", "ok"):
            assert remote[name][:].tolist() == [0, 1, 2], name


NAMES = {
    "°C": "_°C", "+x": "_+x", ":gmd:title": "_:gmd:title", "a b": "a b", "tab\tx": "tab_x",
    "end ": "end_", "-x": "-x", "x" * 250: None, "日本": "_日本", "µ": "_µ", "x\u0301": "x\u0301",
    "a&b": "a&b", "(x)": "_(x)", "1": "1", "%41": "_%41", "a;b": "a;b",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_name_can_be_opened(field: Server, name: str) -> None:
    def fill(file: h5py.File) -> None:
        file[name] = np.arange(3.0)
        file["ok"].attrs[name] = "value"

    file_name = f"name-{sorted(NAMES).index(name)}.h5"
    url = hdf5(field, file_name, fill)
    with netCDF4.Dataset(url) as remote:
        assert remote["ok"][:].tolist() == [0, 1, 2]
        assert len(remote.variables) == 2
        other = next(v for n, v in remote.variables.items() if n != "ok")
        assert other[:].tolist() == [0, 1, 2]
        assert len(other.name.encode()) <= 3 * (MAX_NAME + 9)
        (attribute,) = remote["ok"].ncattrs()
        assert remote["ok"].getncattr(attribute) == "value"


@pytest.mark.parametrize("name", ["gmd:title", "title.fr-CA", "a+b", "x#1", "a_b-c"])
def test_names_of_attributes_are_shown_as_they_are(field: Server, name: str) -> None:
    def fill(file: h5py.File) -> None:
        file["ok"].attrs[name] = "value"

    file_name = f"attribute-{name.encode().hex()}.h5"
    url = hdf5(field, file_name, fill)
    with netCDF4.Dataset(url) as remote:
        assert remote["ok"].ncattrs() == [name]
    assert dict(open_url(url, protocol="dap2")["ok"].attributes)[name] == "value"
    shown = subprocess.run(["getdap", "-a", url], capture_output=True, text=True, timeout=60).stdout
    assert f'{name} "value"' in shown


def test_a_fill_value_of_characters(field: Server) -> None:
    with netCDF4.Dataset(field.root / "argo.nc", "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("n", 2)
        file.createDimension("STRING8", 8)
        variable = file.createVariable("PLATFORM", "S1", ("n", "STRING8"), fill_value=b" ")
        variable[:] = netCDF4.stringtochar(np.array(["1901234 ", "        "], "S8"))
    assert 'String _FillValue " ";' in field.get("/argo.nc.das").text
    with netCDF4.Dataset(f"{field.url}/argo.nc") as remote:
        remote.set_auto_mask(False)
        remote.set_auto_chartostring(False)
        words = netCDF4.chartostring(remote["PLATFORM"][:])
        assert words.tolist() == ["1901234 ", "        "]


@pytest.mark.parametrize("kind", ["i8", "u8"])
@pytest.mark.parametrize("own", [False, True])
def test_a_64_bit_integer_that_was_never_written(field: Server, kind: str, own: bool) -> None:
    name = f"unwritten-{kind}-{own}.nc"
    with netCDF4.Dataset(field.root / name, "w") as file:
        file.createDimension("x", 3)
        file.createVariable("f", "f4", ("x",))[:] = [1, 2, 3]
        file.createVariable("n", kind, ("x",), fill_value=7 if own else None)[:2] = [4, 5]
    expected = 7.0 if own else float(netCDF4.default_fillvals[kind])
    with netCDF4.Dataset(f"{field.url}/{name}") as remote:
        assert remote["f"][:].tolist() == [1, 2, 3]
        assert remote["n"].getncattr("_FillValue") == expected
        assert remote["n"][:].tolist() == [4, 5, None]
        remote.set_auto_mask(False)
        assert remote["n"][:].tolist() == [4, 5, expected]


def text(variable: Any) -> Any:
    return netCDF4.chartostring(variable[:], encoding="utf-8").tolist()


def test_text_that_is_not_utf8(field: Server) -> None:
    ascii_, fixed = h5py.string_dtype("ascii"), h5py.string_dtype("ascii", 4)

    def fill(file: h5py.File) -> None:
        file.create_dataset("station", data=[b"caf\xe9", b"\xff"], dtype=ascii_)
        file.create_dataset("fixed", data=np.array([b"caf\xe9", b"ab"]), dtype=fixed)
        file.create_dataset("good", data=["日本", "ä"])
        file["ok"].attrs.create("place", b"Orl\xe9ans", dtype=ascii_)
        file["ok"].attrs.create("places", [b"Orl\xe9ans", b"x"], dtype=ascii_)

    url = hdf5(field, "latin.h5", fill)
    with netCDF4.Dataset(url) as remote:
        remote.set_auto_chartostring(False)
        assert remote["ok"][:].tolist() == [0, 1, 2]
        assert remote["ok"].place == "Orléans"
        assert text(remote["station"]) == ["café", "ÿ"]
        assert text(remote["fixed"]) == ["café", "ab"]
        assert text(remote["good"]) == ["日本", "ä"]
    assert '"café", "ÿ"' in field.get("/latin.h5.ascii?station").text


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ({"Host": "data.example.org"}, "http://data.example.org"),
        ({"Host": "a.org", "X-Forwarded-Proto": "https"}, "https://a.org"),
        ({"X-Forwarded-Host": "b.org:8443", "X-Forwarded-Proto": "https"}, "https://b.org:8443"),
        ({"Host": "a.org", "X-Forwarded-Proto": "gopher"}, "http://a.org"),
        ({"Host": "<script>"}, "http://127.0.0.1"),
    ],
)
def test_pages_show_the_address_that_the_client_has(
    field: Server, headers: dict[str, str], origin: str
) -> None:
    hdf5(field, "page.h5", lambda _: None)
    assert f"<code>{origin}" in field.get("/page.h5.html", headers=headers).text


def test_a_download_goes_on(field: Server) -> None:
    (field.root / "part.txt").write_bytes(bytes(range(100)))
    for wanted, expected in (
        ("bytes=90-", (90, 100)),
        ("bytes=5-9", (5, 10)),
        ("bytes=0-999", (0, 100)),
    ):
        answer = field.get("/part.txt", headers={"Range": wanted})
        assert (answer.status, answer.body) == (206, bytes(range(*expected)))
        assert answer.headers["Content-Range"] == f"bytes {expected[0]}-{expected[1] - 1}/100"
    assert field.get("/part.txt", headers={"Range": "bytes=100-"}).status == 416
    assert field.get("/part.txt", headers={"Range": "lines=1-2"}).body == bytes(range(100))


def test_doubled_slashes(field: Server) -> None:
    hdf5(field, "slash.h5", lambda _: None)
    expected = field.get("/slash.h5.dds").body
    for path in ("//slash.h5.dds", "///slash.h5.dds"):
        assert field.get(path).body == expected
    assert field.get("//opendap//slash.h5.dds", raw=True).body == expected
