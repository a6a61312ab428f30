"""The folder for a USB stick: what is in it, and that its start page opens from a disk."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from hyraxvm.config import images
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import UserError
from hyraxvm.core.process import output
from hyraxvm.core.workspace import Workspace
from hyraxvm.stages.workshop import packages
from hyraxvm.tools import kit
from tests.unit.browser import Browser
from tests.unit.stages.workshop.r_packages import files, pack

TABLE = images.load()
NAME = "hyrax-vm-workshop-dapdir1.0.0-debian13-amd64"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace in which two files of the image are built."""
    made = Workspace(tmp_path, tmp_path / "artifacts", StageCache(tmp_path / "cache"))
    made.artifacts.mkdir()
    for name in (f"{NAME}.zip", f"{NAME}.ova"):
        (made.artifacts / name).write_bytes(name.encode() * 1000)
    (made.artifacts / f"{NAME}.manifest.json").write_text("{}")
    return made


@pytest.fixture
def squashfs(tmp_path: Path) -> Path:
    """A squashfs with some of the workshop's pages."""
    www = tmp_path / "tree/srv/workshop/www"
    decks = ("slides/1-dap.html", "slides/2-serving.html", "slides/3-clients.html")
    for name in ("index.html", "clients.html", *decks):
        (www / name).parent.mkdir(parents=True, exist_ok=True)
        (www / name).write_text(f"<title>{name}</title>")
    packages.index_r([pack(tmp_path / "r-cran-gridded", files("gridded", 5))], www / "r")
    made = tmp_path / "workshop.squashfs"
    tar = ["tar", "--create", "--directory", str(tmp_path / "tree"), "srv"]
    packed = subprocess.run(tar, capture_output=True, check=True).stdout
    subprocess.run(["tar2sqfs", "--quiet", str(made)], input=packed, check=True)
    return made


def test_the_stick_has_images_pages_and_sums(
    workspace: Workspace, squashfs: Path, tmp_path: Path, browser: Browser
) -> None:
    found = kit.images(workspace, TABLE, "workshop")
    page = kit.make(tmp_path / "stick", found, squashfs, print)
    assert page == tmp_path / "stick/index.html"
    names = sorted(path.name for path in (page.parent / "images").iterdir())
    assert names == ["SHA256SUMS", f"{NAME}.manifest.json", f"{NAME}.ova", f"{NAME}.zip"]
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    subprocess.run(check, cwd=page.parent / "images", check=True, capture_output=True)
    assert (page.parent / "workshop/slides/1-dap.html").is_file()
    assert not (page.parent / "srv").exists()
    browser.open(page.as_uri())
    assert browser.complaints() == []
    assert browser.barriers() == []
    links = [e.get_attribute("href") for e in browser.driver.find_elements(By.TAG_NAME, "a")]
    here = [str(link).partition("#")[0] for link in links if str(link).startswith("file:")]
    assert len(here) >= 7
    for link in here:
        assert Path(link.removeprefix("file://")).is_file(), link
    text = browser.driver.find_element(By.TAG_NAME, "body").text
    for words in ("VirtualBox", "VMware", "http://ADDRESS:8080/workshop/", f"{NAME}.zip"):
        assert words in text


def test_each_architecture_has_its_own_hypervisors(
    workspace: Workspace, squashfs: Path, tmp_path: Path, browser: Browser
) -> None:
    arm = NAME.replace("amd64", "arm64")
    (workspace.artifacts / f"{arm}.manifest.json").write_text("{}")
    for name in (f"{arm}.zip", f"{arm}.utm.zip", f"{NAME}-hyperv.zip"):
        with (workspace.artifacts / name).open("wb") as made:
            made.truncate(123_000_000)
    found = kit.images(workspace, TABLE, "workshop")
    browser.open(kit.make(tmp_path / "stick", found, squashfs, print).as_uri())
    assert browser.barriers() == []
    sizes = browser.driver.find_elements(By.CSS_SELECTOR, "td .number")
    assert len(sizes) == 5
    for size in sizes:
        lines = browser.driver.execute_script("return arguments[0].getClientRects().length", size)
        assert lines == 1, size.text
    text = browser.driver.find_element(By.TAG_NAME, "body").text
    intel, mac = text.split("On computers with 64-bit ARM processors")
    assert f"{arm}.utm.zip" in intel  # the table of files
    assert "NAME.ova" in intel.partition("On computers with Intel and AMD processors")[2]
    assert "NAME.utm.zip" in mac and "NAME.ova" not in mac and "ESXi" not in mac


def test_r_installs_from_the_stick(workspace: Workspace, squashfs: Path, tmp_path: Path) -> None:
    stick, library = tmp_path / "my stick", tmp_path / "library"
    library.mkdir()
    kit.make(stick, kit.images(workspace, TABLE, "workshop"), squashfs, print)
    # As the start page says it, which does not encode a space.
    repos = f"file://{stick}/workshop/r"
    code = f'install.packages("gridded", repos = "{repos}", type = "source", lib = "{library}")'
    output(["R", "--vanilla", "--no-echo", "-e", code])
    code = f'cat(getExportedValue(loadNamespace("gridded", lib.loc = "{library}"), "size")())'
    assert output(["R", "--vanilla", "--no-echo", "-e", code]) == "5"


def test_a_folder_with_files_is_left_alone(
    workspace: Workspace, squashfs: Path, tmp_path: Path
) -> None:
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick/mine.txt").write_text("mine")
    with pytest.raises(
        UserError, match=r"exists and is not empty; name a new folder: \./inv kit DIR"
    ):
        kit.make(tmp_path / "stick", kit.images(workspace, TABLE, "workshop"), squashfs, print)
    assert [path.name for path in (tmp_path / "stick").iterdir()] == ["mine.txt"]


def test_what_is_not_built_is_named(workspace: Workspace) -> None:
    shutil.rmtree(workspace.artifacts)
    with pytest.raises(
        UserError, match=r"image 'workshop' is not built; type: \./inv build workshop"
    ):
        kit.images(workspace, TABLE, "workshop")
