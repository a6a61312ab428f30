"""`hyrax-data restrict`: a real nginx before a real dapdir, and the clients that readers use."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import netCDF4
import pytest

from tests.unit.dapdir.running import Server
from tests.unit.guest.guest_copy import Guest, Pattern
from tests.unit.guest.https_door import HttpsDoor

PASSWORD = "correct horse"
# netrc(5) has no blanks in passwords.
NETRC = "machine 127.0.0.1 login netrc password {}\n"
OTHER = "correcthorse"
SECRET = "/opendap/data/sst/a.nc"
VALUES = [0, 10, 20, 30]


def make(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("x", 4)
        file.createVariable("v", "i4", ("x",))[:] = VALUES


@pytest.fixture(scope="module")
def dapdir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("restrict") / "root"
    for name in ("sst", "sst.2020", "rain", "rain/sst"):
        make(root / "data" / name / "a.nc")
    make(root / "sample/sst.nc")
    made = Server(root, root.parent / "log")
    yield made
    made.stop()


def begin(guest: Guest, dapdir: Server) -> HttpsDoor:
    made = HttpsDoor(guest, dapdir.port)
    guest.write("usr/lib/hyrax/front-door", "data_under=data/\nquery_services=viewers\n")
    for name in ("sst", "sst.2020", "rain"):
        guest.write(f"srv/hyrax/data/{name}/a.nc", "")
    made.start()
    return made


@pytest.fixture
def door(guest: Guest, dapdir: Server) -> Iterator[HttpsDoor]:
    made = begin(guest, dapdir)
    yield made
    made.stop()


def restrict(door: HttpsDoor, *arguments: str, stdin: str = f"{PASSWORD}\n") -> str:
    status, out, err = door.guest.data("restrict", *arguments, stdin=stdin)
    assert status == 0, err
    return out


@pytest.fixture
def restricted(door: HttpsDoor) -> HttpsDoor:
    """A front door with HTTPS, and a data set for one user."""
    return with_user(door)


def with_user(door: HttpsDoor) -> HttpsDoor:
    assert door.https("--self-signed", "--host", "127.0.0.1")[0] == 0
    restrict(door, "sst", "--user", "me")
    return door


@pytest.fixture(scope="module")
def shared(
    pattern: Pattern, dapdir: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HttpsDoor]:
    """One restricted front door for tests that only read, with the users me and netrc."""
    made = begin(Guest(tmp_path_factory.mktemp("shared"), pattern), dapdir)
    try:
        with_user(made)
        restrict(made, "sst", "--user", "netrc", stdin=OTHER)
        yield made
    finally:
        made.stop()


def basic(user: str, password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def ask(door: HttpsDoor, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Ask over HTTPS for a path, which is sent as it is."""
    context = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection(
        "127.0.0.1", door.https_port, timeout=20, context=context
    )
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_only_its_users_and_only_over_https(shared: HttpsDoor) -> None:
    door = shared
    assert ask(door, f"{SECRET}.dds", basic("me"))[1].startswith(b"Dataset {")
    assert ask(door, f"{SECRET}.dds")[0] == 401
    assert ask(door, f"{SECRET}.dds", basic("me", "wrong"))[0] == 401
    assert ask(door, f"{SECRET}.dds", basic("you"))[0] == 401
    # Without HTTPS nobody is asked for a password, and the right one is of no use.
    for headers in ({}, basic("me")):
        answer = door.get(f"{SECRET}.dds", headers)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (403, None)
        assert "only over HTTPS" in answer.text
    # All others are open, with similar names and folders too.
    for path in ("rain/a.nc", "sst.2020/a.nc", "rain/sst/a.nc"):
        assert door.get(f"/opendap/data/{path}.dds").status == 200
        assert ask(door, f"/opendap/data/{path}.dds")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/opendap/data/sst",
        "/opendap/data/sst/",
        "/opendap/data/sst.html",
        "/opendap/data/sst/catalog.xml",
        "/opendap/data//sst/a.nc.dds",
        "//opendap//data///sst//a.nc.dds",
        "/opendap/data/./sst/a.nc.dds",
        "/opendap/data/rain/../sst/a.nc.dds",
        "/opendap/data/rain/..%2fsst/a.nc.dds",
        "/opendap/data/%73st/a.nc.dds",
        "/opendap/%64ata%2Fsst%2Fa.nc.dds",
        "/opendap/data/%2573st/a.nc.dds",
        "/opendap/data;x=1/sst/a.nc.dds",
        "/opendap/data/sst;jsessionid=1/a.nc.dds",
        "/opendap/data/%3b/sst;/a.nc.dds",
        "/opendap\\data\\sst\\a.nc.dds",
        "/opendap/data/rain%5c..%5csst/a.nc.dds",
        "/opendap/data/rain/a.nc.dds#/../../sst/a.nc.dds",
        "/opendap/hyrax/data/sst/a.nc.dds",
        "/opendap/viewers/viewers?dapService=/opendap&datasetID=/data/sst/a.nc",
        "http://elsewhere.example/opendap/data/sst/a.nc.dds",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_other_spelling_gets_in(shared: HttpsDoor, path: str, scheme: str) -> None:
    if scheme == "https":
        status, body = ask(shared, path)
    else:
        answer = shared.get(path)
        status, body = answer.status, answer.body
    assert status in (400, 401, 403), body
    assert b"a.nc.dods" not in body and b"Dataset" not in body


def test_joined_files_of_a_restricted_one_are_restricted_too(restricted: HttpsDoor) -> None:
    for name, folder in (("all", "sst"), ("deep", "sst/2020"), ("other", "sst.2020")):
        restricted.guest.write(
            f"srv/hyrax/data/{name}.ncml", f'<scan location="/data/{folder}" regExp="x"/>\n'
        )
    restricted.reload()
    for path in ("all.ncml.dds", "all.ncml", "deep.ncml.dods", "all%2encml.das"):
        assert restricted.get(f"/opendap/data/{path}").status == 403, path
        assert ask(restricted, f"/opendap/data/{path}")[0] == 401
    assert restricted.get("/opendap/data/other.ncml.dds").status == 404
    arguments = ("aggregate", "more", "--over", "sst/*.nc", "--dim", "x")
    restricted.guest.write("etc/hyrax-vm-release", "SERVER=hyrax\nACCESS=nfs\nSERVER_USER=nobody\n")
    status, _, err = restricted.guest.data(*arguments)
    assert (status, "'sst' is restricted, and the joined files would be open" in err) == (2, True)


def test_a_mistake_in_a_setting_opens_nothing(restricted: HttpsDoor) -> None:
    """Without its settings, as at a boot with a bad file, the front door keeps the data set."""
    restricted.stop()
    restricted.guest.write("etc/hyrax/nginx.d/mine.conf", "locaton /mine {}\n")
    subprocess.run(["rm", "-r", restricted.guest.root / "run/hyrax/front-door"], check=True)
    assert restricted.write()[0] == 0
    (restricted.guest.root / "etc/hyrax/nginx.d/mine.conf").unlink()
    restricted.run()
    assert restricted.get(f"{SECRET}.dds").status == 403
    assert restricted.get("/opendap/data/rain/a.nc.dds").status == 200


def test_users_come_and_go_without_a_reload(restricted: HttpsDoor, tmp_path: Path) -> None:
    door = restricted
    restrict(door, "sst", "--user", "you", stdin="another one\n")
    assert ask(door, f"{SECRET}.dds", basic("you", "another one"))[0] == 200
    restrict(door, "sst", "--user", "me", stdin="a new password\r\n")
    assert ask(door, f"{SECRET}.dds", basic("me"))[0] == 401
    assert ask(door, f"{SECRET}.dds", basic("me", "a new password"))[0] == 200
    restrict(door, "sst", "--remove", "you")
    assert ask(door, f"{SECRET}.dds", basic("you", "another one"))[0] == 401
    status, _, err = door.guest.data("restrict", "sst", "--remove", "me")
    assert (status, "is the last user of sst" in err) == (2, True)
    made = [
        f"{kind.strip('-')}:" + subprocess.run(
            ["openssl", "passwd", kind, "-stdin"], input=PASSWORD, capture_output=True, text=True
        ).stdout.strip()
        for kind in ("-6", "-5", "-apr1")
    ]  # fmt: skip
    (tmp_path / "users").write_text("\n".join(made))
    restrict(door, "sst", "--file", str(tmp_path / "users"))
    for user in ("6", "5", "apr1"):
        assert ask(door, f"{SECRET}.dds", basic(user))[0] == 200
    assert ask(door, f"{SECRET}.dds", basic("me", "a new password"))[0] == 401
    assert door.guest.data("unrestrict", "sst")[:2] == (0, "sst is open for everybody\n")
    assert door.get(f"{SECRET}.dds").status == 200


def test_a_hidden_one_is_in_no_listing(restricted: HttpsDoor) -> None:
    door = restricted
    assert b"sst/" in door.get("/opendap/data/").body
    restrict(door, "sst", "--hidden")
    assert door.guest.run("usr/lib/hyrax-vm/landing")[0] == 0
    for path in ("/opendap/data/", "/opendap/data", "/opendap/data/contents.html",
                 "/opendap/data/catalog.html", "//opendap/data/"):  # fmt: skip
        answer = door.get(path)
        assert (answer.status, answer.headers["Location"]) == (302, "/")
    catalog = door.get("/opendap/data/catalog.xml")
    assert catalog.headers.get_content_type() == "application/xml"
    assert (
        '<catalogRef name="rain" xlink:title="rain" xlink:href="rain/catalog.xml"' in catalog.text
    )
    assert 'href="sst/' not in catalog.text
    assert "/data/sst/" not in door.get("/").text
    assert "/data/rain/" in door.get("/").text
    assert ask(door, f"{SECRET}.dds", basic("me"))[0] == 200
    row = json.loads(door.guest.data("list", "--json")[1])[1]
    assert (row["name"], row["users"], row["hidden"]) == ("sst", ["me"], True)
    assert "(for me, hidden)" in door.guest.data("list")[1]
    restrict(door, "sst", "--shown")
    assert b"sst/" in door.get("/opendap/data/").body
    assert "with a password, over HTTPS only" in (
        door.guest.run("usr/lib/hyrax-vm/landing") and door.get("/").text
    )


def test_the_server_does_not_see_the_password_and_others_are_passed_on(
    guest: Guest, tmp_path: Path
) -> None:
    from tests.unit.guest.front_door import DataServer

    server = DataServer()
    door = HttpsDoor(guest, server.port)
    try:
        guest.write("srv/hyrax/data/sst/a.nc", "")
        door.start()
        assert door.https("--self-signed", "--host", "127.0.0.1")[0] == 0
        restrict(door, "sst", "--user", "me")
        seen = json.loads(ask(door, "/any/sst/a.nc", basic("me"))[1])["headers"]
        assert "Authorization" not in seen
        assert (
            door.seen("/any/other/a.nc", basic("me"))["authorization"]
            == basic("me")["Authorization"]
        )
    finally:
        door.stop()
        server.stop()


def test_the_tools_of_the_machine_need_no_password(shared: HttpsDoor) -> None:
    status, out, err = shared.guest.data("test", "rain")
    assert status == 0, err
    status, out, err = shared.guest.data("test", "sst")
    assert status == 0, err
    assert "Dataset {" in out
    rows = json.loads(shared.guest.run("usr/bin/hyrax-server", "status", "--json")[1])
    assert {row["name"]: row["state"] for row in rows["data_sets"]}["sst"] == "ok"


# ---------------------------------------------------------------------------- clients

# netCDF4's wheel has a list of issuers of its own, which counts more than ~/.ncrc.
TRUST = "import netCDF4; netCDF4.rc_set('HTTP.SSL.CAINFO', 'hyrax-vm.pem')\n"
READ = {
    "netCDF4": f"{TRUST}print(netCDF4.Dataset(url)['v'][:].tolist())",
    "xarray": f"{TRUST}import xarray; print(xarray.open_dataset(url)['v'].values.tolist())",
    "pydap": "from pydap.client import open_url\n"
    "print(open_url(url, protocol='dap2')['v'][:].data.tolist())",
    "xarray with pydap": "import xarray; url = url.replace('https', 'dap2', 1)\n"
    "print(xarray.open_dataset(url, engine='pydap')['v'].values.tolist())",
}


@pytest.fixture
def home(shared: HttpsDoor, tmp_path: Path) -> Path:
    """A reader's home directory, with the files of the documentation."""
    path = tmp_path / "home"
    path.mkdir()
    pem = (shared.guest.root / "etc/hyrax/https/server.pem").read_text()
    (path / "hyrax-vm.pem").write_text(pem[: pem.index("-----BEGIN PRIVATE")])
    (path / ".netrc").write_text(NETRC.format(OTHER))
    (path / ".netrc").chmod(0o600)
    (path / ".ncrc").write_text(f"HTTP.SSL.CAINFO={path}/hyrax-vm.pem\nHTTP.NETRC={path}/.netrc\n")
    return path


def client(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "REQUESTS_CA_BUNDLE": f"{home}/hyrax-vm.pem",
        },
        cwd=home, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("settings", [".ncrc", ".dodsrc"])
def test_ncdump_reads_with_netrc(shared: HttpsDoor, home: Path, settings: str) -> None:
    url = f"https://127.0.0.1:{shared.https_port}{SECRET}"
    (home / ".ncrc").rename(home / settings)
    done = client(home, "/usr/bin/ncdump", "-v", "v", url)
    assert "v = 0, 10, 20, 30 ;" in done.stdout, done.stderr
    (home / ".netrc").write_text(NETRC.format("wrong"))
    assert client(home, "/usr/bin/ncdump", url).returncode != 0


@pytest.mark.parametrize("library", sorted(READ))
def test_libraries_read_with_netrc(shared: HttpsDoor, home: Path, library: str) -> None:
    url = f"https://127.0.0.1:{shared.https_port}{SECRET}"
    done = client(home, sys.executable, "-c", f"url = {url!r}\n{READ[library]}")
    assert done.stdout.strip() == str(VALUES), done.stderr
    (home / ".netrc").write_text(NETRC.format("wrong"))
    assert client(home, sys.executable, "-c", f"url = {url!r}\n{READ[library]}").returncode != 0


def test_a_removed_data_set_stays_restricted(door: HttpsDoor) -> None:
    url = "nfs://127.0.0.1:1/export/old"
    assert door.guest.data("add", url, "--later")[0] == 0
    restrict(door, "old", "--user", "me")
    status, _, err = door.guest.data("remove", "old")
    assert (status, err) == (
        0,
        "hyrax-data: its users are kept; to forget them: hyrax-data unrestrict old\n",
    )
    assert door.get("/opendap/data/old/").status == 403


def test_the_settings_file_restricts_before_it_adds(door: HttpsDoor) -> None:
    line = "me:$6$salt.salt$" + "A" * 86
    data = '[[data]]\nurl = "nfs://127.0.0.1:1/export/old"\n'
    path = door.guest.root / "mine.toml"
    path.write_text(f"{data}name = \"old\"\nusers = ['{line}']\nhidden = true\n")
    status, out, err = door.guest.run("usr/bin/hyrax-setup", "apply", str(path))
    assert status == 0, out + err
    assert door.guest.read("etc/hyrax/restrict.d/old.htpasswd") == f"{line}\n"
    (row,) = (r for r in json.loads(door.guest.data("list", "--json")[1]) if r["name"] == "old")
    assert row["hidden"] is True
    assert door.get("/opendap/data/old/").status == 403
    for more, said in (
        ("hidden = true", "line 3: hidden: it needs users"),
        (f"users = ['{line}']", "line 3: users: the data set needs a name"),
        ("name = 'x'\nusers = ['me:plain']", "line 4: users: line 1 of '-' is not USER:HASH"),
    ):
        path.write_text(f"{data}{more}\n")
        status, out, _ = door.guest.run("usr/lib/hyrax-vm/settings", "check", str(path))
        assert status == 2
        assert out.startswith(said)
        assert door.guest.run("usr/lib/hyrax-vm/settings", "apply", str(path))[0] == 2
        assert len(list((door.guest.root / "etc/hyrax/data.d").iterdir())) == 1
