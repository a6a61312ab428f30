"""The workshop's pages and slides, in Chromium, as the front door shows them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from urllib.request import urlopen

import pytest
from selenium.webdriver.common.by import By

from hyraxvm.core.paths import PROVISION
from hyraxvm.stages.workshop import exercises, packages, slides
from tests.unit.browser import DESKTOP, PHONE, Browser
from tests.unit.guest.front_door import DataServer, FrontDoor, until
from tests.unit.guest.guest_copy import Guest, Pattern
from tests.unit.guest.workshop import with_workshop

SOURCE = PROVISION / "workshop"
PAGES = ("index", "clients", *sorted(path.stem for path in (SOURCE / "exercises").glob("*.md")))
DECKS = sorted(path.stem for path in (SOURCE / "slides").glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a machine with the workshop's pages."""
    folder = tmp_path_factory.mktemp("guest")
    guest = with_workshop(Guest(folder, Pattern(tmp_path_factory.mktemp("pattern"))))
    www = guest.root / "usr/lib/hyrax/workshop/srv/workshop/www"
    exercises.make(SOURCE, www)
    slides.make(SOURCE / "slides", www / "slides")
    packages.index(folder, www / "packages")  # an empty one
    packages.index_r([], www / "r")
    behind = DataServer()
    door = FrontDoor(guest, behind.port)
    try:
        door.start()
        yield f"http://127.0.0.1:{door.port}"
    finally:
        door.stop()
        behind.stop()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_keeps_nobody_out(
    browser: Browser, site: str, name: str, size: tuple[int, int]
) -> None:
    for dark in (False, True):
        browser.open(f"{site}/workshop/{name}.html", size, dark=dark)
        for each in browser.driver.find_elements(By.CSS_SELECTOR, "summary"):
            each.click()
        browser.picture(f"workshop-{name}-{size[0]}-{'dark' if dark else 'light'}")
        assert browser.overflow() == 0
        assert browser.complaints() == []
        assert browser.requested() == [f"{site}/workshop/{name}.html"]
        assert browser.barriers() == []


def test_every_link_in_the_pages_leads_somewhere(browser: Browser, site: str) -> None:
    browser.open(f"{site}/workshop/")
    assert browser.driver.find_element(By.TAG_NAME, "h1").text == "Serve and read scientific data"
    links: set[str] = set()
    for name in PAGES:
        browser.open(f"{site}/workshop/{name}.html")
        found = browser.driver.find_elements(By.CSS_SELECTOR, "a[href]")
        links |= {str(each.get_attribute("href")).partition("#")[0] for each in found}
    here = {link for link in links if link.startswith(f"{site}/workshop/")}
    assert len(here) > len(PAGES) + len(DECKS)
    for link in here:
        with urlopen(link, timeout=20) as answer:
            assert answer.status == 200, link


def test_a_name_is_needed_for_the_notebooks(browser: Browser, site: str) -> None:
    browser.open(f"{site}/workshop/")
    field = browser.driver.find_element(By.ID, "learner")
    button = browser.driver.find_element(By.TAG_NAME, "button")
    field.send_keys("../etc")
    button.click()
    assert browser.driver.current_url == f"{site}/workshop/"
    field.clear()
    field.send_keys("Anna-2")
    button.click()
    until(lambda: "hyrax-setup workshop on NETWORK" in browser.driver.page_source)
    assert browser.driver.current_url == f"{site}/jupyter/start?learner=Anna-2"


@pytest.mark.parametrize("deck", DECKS)
def test_slides_need_nothing_from_elsewhere_and_fit(browser: Browser, site: str, deck: str) -> None:
    browser.open(f"{site}/workshop/slides/{deck}.html", (1280, 720))
    slides_here = browser.run("return Reveal.getTotalSlides()")
    written = (SOURCE / "slides" / f"{deck}.md").read_text()
    prose = re.sub(r"```.*?```", "", written, flags=re.DOTALL)
    assert slides_here == len(re.findall(r"^##? ", prose, re.MULTILINE))
    for number in range(slides_here):
        browser.run(f"Reveal.slide({number})")
        high, wide = browser.run(
            "const one = Reveal.getCurrentSlide(); return [one.scrollHeight, one.scrollWidth]"
        )
        assert high <= 700 and wide <= 960, f"slide {number + 1}: {wide} x {high}"
        # What is in reveal.js itself; and only the first slide has a heading of the first level.
        own = ("landmark-", "region", "page-has-heading-one")
        assert [one for one in browser.barriers() if not one.startswith(own)] == []
    browser.picture(f"slides-{deck}")
    # sphinx-revealjs names a property by its old name, too.
    said = browser.complaints()
    assert [one for one in said if "apple-mobile-web-app" not in one] == []
    assert [url for url in browser.requested() if not url.startswith(site)] == []


def test_slides_print_one_to_a_page(browser: Browser, site: str) -> None:
    browser.open(f"{site}/workshop/slides/1-dap.html?print-pdf", (1280, 720))
    pages = "return document.querySelectorAll('.pdf-page').length"
    until(lambda: bool(browser.run(pages)))
    total = browser.run("return Reveal.getTotalSlides()")
    printed = browser.command("Page.printToPDF", preferCSSPageSize=True)["data"]
    found = re.findall(rb"/Type\s*/Page\b", base64.b64decode(printed))
    assert browser.run(pages) == len(found) == total
