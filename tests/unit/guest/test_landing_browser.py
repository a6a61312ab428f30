"""The landing page in Chromium, as the front door serves it on a forwarded port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By

from hyraxvm.stages.provision.samples import make_samples
from tests.unit.browser import Browser
from tests.unit.dapdir.running import Server
from tests.unit.guest.front_door import FrontDoor
from tests.unit.guest.guest_copy import RELEASE, Guest, Pattern, edit

VM = "http://192.0.2.7:8080"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, pattern: Pattern) -> Iterator[str]:
    """The URL of the page of a machine with many data sets, some with long names."""
    guest = Guest(tmp_path_factory.mktemp("guest"), pattern)
    for name in ("sst", "w" * 63, "a-long-name.with.dots_and-lines-2020"):
        guest.write(f"etc/hyrax/data.d/{name}.conf", f"NAME={name}\nURL=nfs://127.0.0.1:1/{name}\n")
    (guest.root / "srv/hyrax/data/mine").mkdir(parents=True)
    data = guest.root / "srv/hyrax"
    (data / "sample").mkdir()
    make_samples(data / "sample")
    server = Server(data, tmp_path_factory.mktemp("log") / "log", workers=1)
    door = FrontDoor(guest, server.port)
    guest.write("etc/hyrax-vm-release", f"{RELEASE}BASE=debian-12\nARCH=amd64\n")
    guest.stand_in("curl", f'exec /usr/bin/curl --connect-to ::127.0.0.1:{server.port} "$@"')
    try:
        door.start()
        # The page shows the port that a machine has.
        edit(guest.root / "usr/lib/hyrax-vm/lib.sh", f"\nPORT={door.port} ", "\nPORT=8080 ")
        assert guest.run("usr/lib/hyrax-vm/landing") == (0, "", "")
        yield f"http://127.0.0.1:{door.port}"
    finally:
        door.stop()
        server.stop()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (375, 812)], ids=["desktop", "phone"])
def test_it_fits_and_asks_nobody_else(
    browser: Browser, site: str, size: tuple[int, int], dark: bool
) -> None:
    browser.open(f"{site}/", size, dark=dark)
    browser.picture(f"landing-{size[0]}-{'dark' if dark else 'light'}")
    for each in browser.driver.find_elements(By.CSS_SELECTOR, "details:not([open]) summary"):
        each.click()
    assert browser.run("return innerWidth") == size[0]
    assert browser.overflow() == 0
    for element in browser.driver.find_elements(By.CSS_SELECTOR, "h1, h2, a:not(.skip), td, pre"):
        box = element.rect
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0], element.text
    body = browser.driver.find_element(By.TAG_NAME, "body")
    back = body.value_of_css_property("background-color")
    assert back == ("rgba(18, 24, 29, 1)" if dark else "rgba(255, 255, 255, 1)")
    assert "The data server answers" in body.text
    assert browser.complaints() == []
    assert browser.requested() == [f"{site}/"]
    assert browser.barriers() == []


def test_the_script_puts_the_address_that_works(browser: Browser, site: str) -> None:
    browser.open(f"{site}/")
    assert VM not in browser.driver.find_element(By.TAG_NAME, "main").text
    shown = browser.run("return document.body.textContent")
    assert f'xarray.open_dataset("{site}/opendap/sample/sst.nc", engine="netcdf4")' in shown
    assert f"{site}/opendap/data/sst/" in shown


def test_without_a_script_the_machines_own_address_is_explained(
    browser: Browser, site: str
) -> None:
    browser.open(f"{site}/", script=False)
    main = browser.driver.find_element(By.TAG_NAME, "main").text
    assert f'xarray.open_dataset("{VM}/opendap/sample/sst.nc", engine="netcdf4")' in main
    assert "If your browser shows a different address for this page" in main
    assert f"use that address instead of {VM}." in main
    assert browser.complaints() == []


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Browser, site: str) -> None:
    browser.open(f"{site}/")
    reached = []
    for _ in range(60):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        element = browser.driver.switch_to.active_element
        if element.tag_name == "body":
            break
        assert element.value_of_css_property("outline-style") == "solid", element.text
        reached.append(element.text.strip())
    for words in ("To the data", "Browse the data", "THREDDS catalog", "sst", "Python xarray",
                  "C netCDF-C", "version"):  # fmt: skip
        assert words in reached


def test_links_lead_to_what_the_server_has(browser: Browser, site: str) -> None:
    browser.open(f"{site}/")
    browser.driver.find_element(By.LINK_TEXT, "mine").click()
    assert browser.driver.current_url == f"{site}/opendap/data/mine/"
    browser.driver.back()
    browser.driver.find_element(By.LINK_TEXT, "Browse the data").click()
    assert browser.driver.current_url == f"{site}/opendap/"
    browser.driver.find_element(By.LINK_TEXT, "sample/").click()
    assert "sst.nc" in browser.driver.page_source
