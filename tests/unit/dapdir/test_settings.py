"""What an administrator sets: e-mail address, symbolic links, names of data files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dapdir import __main__ as program
from dapdir.settings import Settings

from tests.unit.dapdir.data_files import make_classic
from tests.unit.dapdir.running import Server, refusal

HERE = {"EMAIL": "me@example.org", "SYMLINKS": "no", "TYPES": "nc:*.dat h5:run-??.out"}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("tuned") / "root"
    (root / "folder").mkdir(parents=True)
    for name in ("a.dat", "run-07.out", "run-7.out", "plain.nc", "folder/b.dat"):
        make_classic(root / name)
    (root / "link.nc").symlink_to("plain.nc")
    (root / "linked").symlink_to("folder")
    server = Server(root, root.parent / "log", workers=1, **HERE)
    yield server
    server.stop()


def test_names_that_fit_are_offered_and_others_are_not(tuned: Server) -> None:
    page, catalog = tuned.get("/").text, tuned.get("/catalog.xml").text
    for name, offered in (("a.dat", True), ("run-07.out", True), ("run-7.out", False)):
        assert (f'href="./{name}.dds"' in page) == offered
        assert (f'urlPath="{name}"' in catalog) == offered
    assert 'href="./plain.nc.dds"' in page
    values = tuned.get("/plain.nc.dods?plain").body.partition(b"Data:\n")[2]
    assert tuned.get("/a.dat.dods?plain").body.endswith(b"Data:\n" + values)


def test_links_are_neither_listed_nor_served(tuned: Server) -> None:
    page = tuned.get("/").text
    assert "link" not in page.replace("plain.nc", "")
    for path in ("/link.nc", "/link.nc.dds", "/linked/", "/linked/b.dat.dds"):
        assert tuned.get(path).status == 404, path
    assert tuned.get("/folder/b.dat.dds").status == 200
    assert tuned.get("/plain.nc.dds").status == 200


def test_the_address_stands_on_every_page(tuned: Server) -> None:
    for path in ("/", "/plain.nc.html", "/nothing", "/folder/"):
        assert '<a href="mailto:me@example.org">me@example.org</a>' in tuned.get(path).text


def test_without_settings_nothing_differs(server: Server) -> None:
    assert "administrator" not in server.get("/").text
    empty = {"EMAIL": "", "SYMLINKS": "", "TYPES": " "}
    assert Settings.read({}, pytest.fail) == Settings.read(empty, pytest.fail) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DAPDIR_BIND", "8081", "'8081' must be ADDRESS:PORT"),
        ("DAPDIR_WORKERS", "9", "'9' must be a number from 1 to 4"),
        ("DAPDIR_PATIENCE", "x", "'x' must be a number of seconds"),
    ],
)
def test_a_wrong_one_ends_the_start_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv("DAPDIR_ROOT", str(tmp_path))
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(program, "_serve", lambda *_: pytest.fail("it starts"))
    with pytest.raises(SystemExit) as raised:
        program.main()
    told = str(raised.value.code)  # goes to standard error; status 1
    assert said in told
    assert "\n" not in told


def test_what_ends_the_start_is_all_that_is_said(tmp_path: Path) -> None:
    assert refusal(tmp_path, DAPDIR_WORKERS="9").count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EMAIL", "me", "'me' is not an e-mail address"),
        ("EMAIL", "a@b><script>", "is not an e-mail address"),
        ("SYMLINKS", "maybe", "must be yes or no"),
        ("TYPES", "nc:*.dat;x", "'nc:*.dat;x' must be nc:PATTERN"),
        ("TYPES", "nc:*.dat *.hdx", "'*.hdx' must be nc:PATTERN"),
        ("TYPES", "ff:*.dat", "'ff:*.dat' must be"),
    ],
)
def test_a_wrong_setting_is_said_in_one_line_and_the_others_count(
    name: str, value: str, said: str
) -> None:
    told: list[str] = []
    found = Settings.read({**HERE, name: value}, told.append)
    assert found == Settings.read({key: HERE[key] for key in HERE if key != name}, pytest.fail)
    (line,) = told
    assert said in line and "not used" in line and "\n" not in line


def test_data_are_served_with_a_wrong_setting(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    make_classic(root / "plain.nc")
    server = Server(root, tmp_path / "log", workers=1, SYMLINKS="maybe", EMAIL="me@example.org")
    try:
        assert server.get("/plain.nc.dds").status == 200
        assert "me@example.org" in server.get("/").text
    finally:
        server.stop()
    assert "dapdir: SYMLINKS='maybe' must be yes or no; it is not used" in (
        (tmp_path / "log").read_text()
    )
