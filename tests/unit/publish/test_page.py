"""The download page: as text, and in Chromium at a desktop's and a phone's width."""

from __future__ import annotations

import hashlib
import html.parser
import json
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from hyraxvm.config.arch import DEFAULT
from hyraxvm.core.errors import UserError
from hyraxvm.formats import FORMATS, made_for
from hyraxvm.publish import page
from hyraxvm.release import index
from tests.unit.browser import DESKTOP, PHONE, Browser
from tests.unit.release.shop import NAME, NFS, Shop, assemble, make_image
from tests.unit.store.loopback import Rclone, serving

SIZES = {"desktop": DESKTOP, "phone": PHONE}


class Page(html.parser.HTMLParser):
    """A parser that collects what a page has without JavaScript."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.hidden: list[str] = []
        self.values: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.links += [found[name] for name in ("href", "src") if name in found]
        self.values += [found["value"]] if "value" in found else []
        if "hidden" in found:
            self.hidden.append(tag)


def test_the_page_has_every_file_without_javascript(folder: Path) -> None:
    one = index.read_release((folder / "release.json").read_bytes(), "")
    old = {"version": "0.9.0", "path": "releases/0.9.0", "key": "CD" * 20}
    older = one.model_copy(update=old)
    text = page.render_page(index.make_index("AB" * 20, [one, older]))
    found = Page(text)
    for image in one.images:
        for file in image.files:
            assert f"releases/1.0.0/{file.name}" in found.links
            assert f"releases/0.9.0/{file.name}" in found.links
            assert file.sha256 in text
    # Each version links to the key that signed it, not to the key that signs now.
    assert f"keys/{one.key}.asc" in found.links
    assert f"keys/{'CD' * 20}.asc" in found.links
    assert f"gpg --import {one.key}.asc" in text
    assert "AB" * 20 not in text
    assert found.hidden == ["form"]  # these are useless without JavaScript
    # The folder may be anywhere: no link leaves it, and none begins at the site's root.
    assert not [link for link in found.links if ":" in link or link.startswith(("/", ".."))]
    assert {one.format for one in page.hypervisors()} == set(FORMATS)


def test_a_page_with_nothing_on_it() -> None:
    text = page.render_page(index.make_index("AB" * 20, []))
    assert "Nothing is published yet." in text
    assert Page(text).links == ["#files"]


# The hypervisors that open images of the usual architecture.
OPENING = {one.id: one for one in page.hypervisors() if FORMATS[one.format] in made_for(DEFAULT)}
HOSTILE = "\"'><script>bad()</script><a href='//bad.example/'>{{ 7 * 7 }}&"


def hostile(folder: Path) -> index.Release:
    """Return a release in which every text that the schema leaves free is hostile."""
    one = index.read_release((folder / "release.json").read_bytes(), "")
    server = {"name": HOSTILE, "version": HOSTILE, "title": HOSTILE}
    images = []
    for image in one.images:
        texts = {name: HOSTILE for name in ("image", "title", "access", "base", "arch")}
        images.append(image.model_copy(update={**texts, "server": index.PublishedServer(**server)}))
    made = one.model_copy(update={"images": images, "revision": HOSTILE})
    return index.read_release(index.dump(made), "")


def test_hostile_texts_stay_texts(folder: Path) -> None:
    one = index.read_release((folder / "release.json").read_bytes(), "")
    text = page.render_page(index.make_index("AB" * 20, [hostile(folder)]))
    assert text.count("<script") == 1  # the script in the page
    assert "&lt;script&gt;bad()" in text
    assert "{{ 7 * 7 }}" in text
    found = Page(text)
    assert found.links == Page(page.render_page(index.make_index("AB" * 20, [one]))).links
    assert HOSTILE in found.values


@pytest.mark.parametrize(
    "change",
    [{"name": "a/b"}, {"name": '"><script>'}, {"sha256": "<b>"}, {"size": -1}],
)
def test_what_becomes_a_link_is_held_to_the_schema(folder: Path, change: dict[str, object]) -> None:
    found = json.loads((folder / "release.json").read_bytes())
    found["images"][0]["files"][0] |= change
    with pytest.raises(UserError, match=r"is not a valid release: images\.0\.files\.0"):
        index.read_release(json.dumps(found).encode(), "it")


def lacking(folder: Path) -> index.Release:
    """Return a release without a file for Hyper-V, and with an OVA of one image alone."""
    one = index.read_release((folder / "release.json").read_bytes(), "")
    images = [
        image.model_copy(
            update={
                "files": [
                    file
                    for file in image.files
                    if file.format != "hyperv" and (image.image, file.format) != ("nfs", "ova")
                ]
            }
        )
        for image in one.images
    ]
    return one.model_copy(update={"images": images})


def test_what_a_release_does_not_have_is_said(folder: Path) -> None:
    text = page.render_page(index.make_index("AB" * 20, [lacking(folder)]))
    sections = {part.split('"')[0]: part for part in text.split('<section class="choice" id="')[1:]}
    said = "This version has no file for this hypervisor."
    others = dict.fromkeys(OPENING, 0)
    assert {name: part.count(said) for name, part in sections.items()} == {
        **others,
        **dict.fromkeys(("esxi", "virtualbox"), 1),
        "hyperv": 2,
    }
    assert [name for name, part in sections.items() if "<ol>" not in part] == ["hyperv"]


# ------------------------------------------------------------------------------- in Chromium
@pytest.fixture(scope="module")
def published(
    tmp_path_factory: pytest.TempPathFactory, server: Rclone, key: str, folder: Path, second: Path
) -> Iterator[tuple[str, Path]]:
    """The URL and the folder of two releases and a nightly, on a web server."""
    shop = Shop(server, f"page-{os.getpid()}", key)
    work = tmp_path_factory.mktemp("nightly")
    nightly = assemble(work, "20260102", [make_image(work, seed=b"n")], key)
    newest = tmp_path_factory.mktemp("newest")
    images = [make_image(newest, name, seed=b"3") for name in ("local", "nfs", "smb")]
    for made in (folder, second, nightly, assemble(newest, "1.2.0", images, key)):
        shop.send(made)
    top = shop.folder / "vm"
    # In a folder, as with a prefix in a bucket.
    with serving(shop.folder) as url:
        yield f"{url}/vm/index.html", top


WHAT_IS_SHOWN = """
    const of = (selector, what) => [...document.querySelectorAll("section.choice " + selector)]
        .filter(one => one.checkVisibility()).map(one => one[what]);
    return {
        title: of("h3", "innerText"), file: of("a.get", "innerText"), link: of("a.get", "href"),
        digest: of(".sum code", "innerText"), signature: of(".sum a", "href"),
        steps: of("li", "innerText"),
    };
"""


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        assert answer.status == 200
        data: bytes = answer.read()
    assert data, url
    return data


def shown(browser: Browser, selector: str) -> list[WebElement]:
    found = browser.driver.find_elements(By.CSS_SELECTOR, selector)
    return [one for one in found if one.is_displayed()]


def pick(browser: Browser, value: str) -> None:
    """Click on the words of a choice, as people do."""
    box = browser.driver.find_element(By.CSS_SELECTOR, f"input[value='{value}']")
    box.find_element(By.XPATH, "..").click()


def test_only_hypervisors_that_open_an_image_are_offered(folder: Path) -> None:
    text = page.render_page(index.make_index("AB" * 20, [lacking(folder)]))
    assert re.findall(r'<section class="choice" id="(.*?)"', text) == [*OPENING]
    assert "utm" not in OPENING and "hyperv" in OPENING


@pytest.mark.parametrize("size", SIZES)
def test_each_choice_leads_to_its_one_file(
    published: tuple[str, Path], browser: Browser, size: str
) -> None:
    url, top = published
    browser.open(url, SIZES[size])
    for hypervisor in OPENING.values():
        pick(browser, hypervisor.id)
        for image in ("local", "nfs", "smb"):
            pick(browser, image)
            found = browser.run(WHAT_IS_SHOWN)
            assert found["title"] == [hypervisor.title]
            suffix = FORMATS[hypervisor.format].suffix
            name = f"{NAME.replace('-nfs-', f'-{image}-')}{suffix}"
            assert found["file"] == [name]
            (link,) = found["link"]
            data = fetch(link)
            assert data == (top / "releases/1.2.0" / name).read_bytes()
            assert found["digest"] == [hashlib.sha256(data).hexdigest()]
            assert fetch(found["signature"][0]).startswith(b"-----BEGIN PGP SIGNATURE-----")
            assert found["steps"] == [
                step.replace("{system}", NFS.base.title) for step in hypervisor.steps
            ]
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_and_keeps_nobody_out(
    published: tuple[str, Path], browser: Browser, size: str, scheme: str
) -> None:
    colours = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.command("Emulation.setEmulatedMedia", features=colours)
    browser.open(published[0], SIZES[size])
    browser.picture(f"download-{size}-{scheme}")
    assert browser.overflow() == 0
    assert browser.barriers() == []
    for one in shown(browser, "fieldset label, a.get, summary"):
        assert one.size["height"] >= 40, one.text  # the width of a finger, in CSS pixels
    for one in browser.driver.find_elements(By.TAG_NAME, "details"):
        one.click()
    browser.picture(f"download-{size}-{scheme}-open")
    assert browser.overflow() == 0
    assert browser.barriers() == []
    assert browser.complaints() == []
    browser.command("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("size", SIZES)
def test_without_javascript_all_of_it_is_there(
    published: tuple[str, Path], browser: Browser, size: str
) -> None:
    browser.open(published[0], SIZES[size], script=False)
    assert shown(browser, "form") == []
    assert len(shown(browser, "section.choice")) == len(OPENING)
    assert len(shown(browser, "a.get")) == 3 * len(OPENING)
    assert browser.complaints() == []
    assert browser.overflow() == 0
    browser.picture(f"download-{size}-plain")


def test_every_link_leads_somewhere(
    published: tuple[str, Path], browser: Browser, key: str
) -> None:
    browser.open(published[0])
    links = {
        str(one.get_attribute("href")) for one in browser.driver.find_elements(By.TAG_NAME, "a")
    }
    paths = {link.removeprefix(published[0].removesuffix("index.html")) for link in links}
    key_file = f"keys/{key}.asc"
    for wanted in (
        *(key_file, "releases/1.2.0/SHA256SUMS.asc", "releases/1.2.0/provenance.intoto.json"),
        *("releases/1.0.0/RELEASE-NOTES.md", "releases/1.1.0/SHA256SUMS"),
        f"nightlies/20260102/{NAME}.ova",
    ):
        assert wanted in paths
    assert len(links) > 40
    for link in links:
        fetch(link)


def test_texts_that_are_hostile_run_nothing(folder: Path, tmp_path: Path, browser: Browser) -> None:
    (tmp_path / "index.html").write_text(
        page.render_page(index.make_index("AB" * 20, [hostile(folder)]))
    )
    with serving(tmp_path) as url:
        browser.open(f"{url}/index.html")
        assert browser.run("return document.scripts.length;") == 1
        assert browser.complaints() == []  # such as `bad is not defined`
        found = browser.run(WHAT_IS_SHOWN)
        assert [str(link).split("/")[3] for link in found["link"]] == ["releases"] * 2


def test_steps_are_shown_with_a_file_only(folder: Path, tmp_path: Path, browser: Browser) -> None:
    (tmp_path / "index.html").write_text(
        page.render_page(index.make_index("AB" * 20, [lacking(folder)]))
    )
    with serving(tmp_path) as url:
        browser.open(f"{url}/index.html")
        for hypervisor, image, there in (
            *(("vmware", "nfs", True), ("hyperv", "nfs", False), ("hyperv", "smb", False)),
            *(("esxi", "smb", True), ("esxi", "nfs", False), ("kvm", "nfs", True)),
        ):
            pick(browser, hypervisor)
            pick(browser, image)
            found = browser.run(WHAT_IS_SHOWN)
            assert len(found["file"]) == there, (hypervisor, image)
            assert len(found["steps"]) == 3 * there, (hypervisor, image)
        assert browser.barriers() == []
        assert browser.complaints() == []


def test_a_link_to_a_hypervisor_chooses_it(published: tuple[str, Path], browser: Browser) -> None:
    browser.open(f"{published[0]}#proxmox")
    (section,) = shown(browser, "section.choice")
    assert section.get_attribute("id") == "proxmox"
    browser.open("about:blank")
    browser.open(f"{published[0]}#nothing-of-this-name")
    (section,) = shown(browser, "section.choice")
    assert section.get_attribute("id") == "vmware"


def test_a_keyboard_is_enough(published: tuple[str, Path], browser: Browser) -> None:
    browser.open(published[0])

    def focused() -> WebElement:
        return browser.driver.switch_to.active_element

    focused().send_keys(Keys.TAB)
    assert focused().text == "To the files"
    assert focused().rect["x"] >= 0  # it is visible while it has the focus
    while focused().get_attribute("name") != "hypervisor":
        focused().send_keys(Keys.TAB)
    focused().send_keys(Keys.ARROW_DOWN)
    (section,) = shown(browser, "section.choice")
    assert section.get_attribute("id") == [*OPENING.values()][1].id
    for _ in range(2):
        focused().send_keys(Keys.TAB)
    while focused().get_attribute("class") != "get":
        focused().send_keys(Keys.TAB)
    assert focused().text.endswith(FORMATS[[*OPENING.values()][1].format].suffix)
