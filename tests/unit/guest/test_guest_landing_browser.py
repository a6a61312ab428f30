"""The landing page in Chromium, as dapdir serves it behind a forwarded port."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import browser, complaints, requested, show
from conftest import Guest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from hyraxvm.samples import make_samples

sys.path.append(str(Path(__file__).parents[1] / "dapdir"))
from dapdir_server import Server

VM = "http://192.0.2.7:8080"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a machine with many data sets, long names among them; returns its address."""
    guest = Guest(tmp_path_factory.mktemp("guest"))
    for name in ("sst", "w" * 63, "a-long-name.with.dots_and-lines-2020"):
        guest.write(f"etc/hyrax/data.d/{name}.conf", f"NAME={name}\nURL=nfs://127.0.0.1:1/{name}\n")
    (guest.root / "srv/hyrax/data/mine").mkdir(parents=True)
    data = guest.root / "srv/hyrax"
    (data / "sample").mkdir()
    make_samples(data / "sample")
    home = guest.root / "run/hyrax/www"
    home.mkdir(parents=True)
    server = Server(data, tmp_path_factory.mktemp("log") / "log", workers=1, home=home)
    try:
        assert guest.run("usr/lib/hyrax-vm/landing") == (0, "", "")
        yield server.url.removesuffix("/opendap")
    finally:
        server.stop()


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with browser() as driver:
        yield driver


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_it_fits_and_asks_nobody_else(driver: Chrome, site: str, width: int, dark: bool) -> None:
    show(driver, f"{site}/", width, dark=dark)
    for each in driver.find_elements(By.CSS_SELECTOR, "details:not([open]) summary"):
        each.click()
    assert driver.execute_script("return innerWidth") == width
    assert driver.execute_script("return document.documentElement.scrollWidth") == width
    for element in driver.find_elements(By.CSS_SELECTOR, "h1, h2, a:not(.skip), td, pre"):
        box = element.rect
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width, element.text
    back = driver.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert back == ("rgba(18, 24, 29, 1)" if dark else "rgba(255, 255, 255, 1)")
    assert complaints(driver) == []
    assert requested(driver) == [f"{site}/"]


def test_the_script_puts_the_address_that_works(driver: Chrome, site: str) -> None:
    show(driver, f"{site}/")
    assert VM not in driver.find_element(By.TAG_NAME, "main").text
    shown = driver.execute_script("return document.body.textContent")
    assert f'xarray.open_dataset("{site}/opendap/sample/sst.nc", engine="netcdf4")' in shown
    assert f"{site}/opendap/data/sst/" in shown


def test_without_a_script_the_machines_own_address_is_explained(driver: Chrome, site: str) -> None:
    show(driver, f"{site}/", script=False)
    main = driver.find_element(By.TAG_NAME, "main").text
    assert f'xarray.open_dataset("{VM}/opendap/sample/sst.nc", engine="netcdf4")' in main
    assert f"If your browser shows another address than {VM} for this page" in main
    assert complaints(driver) == []


def test_the_keyboard_reaches_everything_and_shows_where_it_is(driver: Chrome, site: str) -> None:
    show(driver, f"{site}/")
    reached = []
    for _ in range(60):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        element = driver.switch_to.active_element
        if element.tag_name == "body":
            break
        assert element.value_of_css_property("outline-style") == "solid", element.text
        reached.append(element.text.strip())
    for words in ("To the data", "Browse the data", "THREDDS catalog", "sst", "Python xarray",
                  "C netCDF-C", "version"):  # fmt: skip
        assert words in reached


def test_links_lead_to_what_the_server_has(driver: Chrome, site: str) -> None:
    show(driver, f"{site}/")
    driver.find_element(By.LINK_TEXT, "mine").click()
    assert driver.current_url == f"{site}/opendap/data/mine/"
    driver.back()
    driver.find_element(By.LINK_TEXT, "Browse the data").click()
    assert driver.current_url == f"{site}/opendap/"
    driver.find_element(By.LINK_TEXT, "sample/").click()
    assert "sst.nc" in driver.page_source
