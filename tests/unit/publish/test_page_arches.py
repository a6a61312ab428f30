"""The download page of a release for two architectures and on two bases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyraxvm.config import images
from hyraxvm.config.arch import ARCHES
from hyraxvm.formats import FORMATS, made_for
from hyraxvm.publish import page
from hyraxvm.release import index
from tests.unit.browser import Browser
from tests.unit.publish.test_page import WHAT_IS_SHOWN, Page, pick
from tests.unit.store.loopback import serving

TITLES = {name: base.title for name, base in images.load().base.items()}
X86, ARM = ARCHES["amd64"].processors, ARCHES["arm64"].processors
AGENT = {
    "mac": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Safari/605.1.15",
    "linux": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0.0.0 Safari/537.36",
}


def release(folder: Path, systems: list[tuple[str, str]]) -> index.Release:
    """Return the release with each image on each of the (base, architecture)."""
    one = index.read_release((folder / "release.json").read_bytes(), "")
    made = []
    for image in one.images:
        for base, arch in systems:
            name = f"{image.image}-{base}-{arch}"
            files = [
                index.File(name=f"{name}{kind.suffix}", format=kind.name, size=1, sha256="0" * 64)
                for kind in made_for(ARCHES["arm64" if arch == "arm64" else "amd64"])
            ]
            texts = {"name": name, "base": base, "arch": arch, "files": files}
            made.append(image.model_copy(update=texts))
    return one.model_copy(update={"images": made})


BOTH = [("debian-13", "arm64"), ("debian-13", "amd64"), ("debian-12", "amd64")]


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    top = tmp_path_factory.mktemp("page")
    text = page.render_page(index.make_index("AB" * 20, [release(folder, BOTH)]))
    (top / "index.html").write_text(text)
    with serving(top) as address:
        yield f"{address}/index.html"


@pytest.fixture(autouse=True)
def own_computer_again(browser: Browser) -> Iterator[None]:
    yield
    browser.command("Network.setUserAgentOverride", userAgent="")


def computer(browser: Browser, agent: str, platform: str, architecture: str | None) -> None:
    """Have the browser say that it runs on another computer; without hints if that is None."""
    values: dict[str, Any] = {"userAgent": AGENT[agent], "platform": platform}
    if architecture is not None:
        values["userAgentMetadata"] = {
            "architecture": architecture, "bitness": "64", "model": "", "mobile": False,
            "platform": "Linux", "platformVersion": "",
        }  # fmt: skip
    browser.command("Network.setUserAgentOverride", **values)


@pytest.mark.parametrize(
    ("agent", "platform", "architecture", "wanted"),
    [
        ("linux", "Linux x86_64", "x86", "amd64"),
        ("linux", "Win32", "arm", "arm64"),
        ("mac", "MacIntel", None, "arm64"),  # Safari, Firefox
        ("linux", "Linux aarch64", None, "arm64"),
        ("linux", "Win32", None, "amd64"),
    ],
)
def test_the_file_for_the_readers_own_computer_comes_first(
    url: str,
    browser: Browser,
    agent: str,
    platform: str,
    architecture: str | None,
    wanted: str,
) -> None:
    computer(browser, agent, platform, architecture)
    browser.open("about:blank")
    browser.open(url)
    if architecture is None:
        # Chromium always has hints; other browsers have none.
        hide = "Object.defineProperty(Navigator.prototype, 'userAgentData', {value: undefined})"
        done = browser.command("Page.addScriptToEvaluateOnNewDocument", source=hide)
        browser.open(f"{url}?again")
        browser.command("Page.removeScriptToEvaluateOnNewDocument", **done)
    assert browser.run("return document.querySelector('[name=arch]:checked').value;") == wanted
    found = browser.run(WHAT_IS_SHOWN)
    assert found["file"] == [f"nfs-debian-13-{wanted}.zip"]
    assert browser.complaints() == []


def test_each_choice_leads_to_its_one_file(url: str, browser: Browser) -> None:
    computer(browser, "linux", "Linux x86_64", "x86")
    browser.open(url)
    for arch, base, hypervisor, image in (
        *(("amd64", "debian-12", "kvm", "smb"), ("arm64", "debian-13", "utm", "nfs")),
        *(("amd64", "debian-13", "hyperv", "nfs"), ("arm64", "debian-13", "kvm", "smb")),
    ):
        for value in (arch, base, hypervisor, image):
            pick(browser, value)
        suffix = FORMATS[{"kvm": "qcow2"}.get(hypervisor, hypervisor)].suffix
        assert browser.run(WHAT_IS_SHOWN)["file"] == [f"{image}-{base}-{arch}{suffix}"]
    assert browser.barriers() == []
    assert browser.overflow() == 0


def test_what_a_computer_cannot_open_is_not_offered(url: str, browser: Browser) -> None:
    computer(browser, "linux", "Linux x86_64", "x86")
    browser.open(url)
    offered = """return [...document.querySelectorAll("[name=hypervisor]")]
        .filter(one => one.parentElement.checkVisibility()).map(one => one.value);"""
    assert "utm" not in browser.run(offered)
    pick(browser, "hyperv")
    pick(browser, "arm64")
    assert "utm" in browser.run(offered) and "hyperv" not in browser.run(offered)
    assert browser.run(WHAT_IS_SHOWN)["title"] == ["VMware Workstation, Fusion"]
    # An image that the release does not have is said, without steps.
    pick(browser, "debian-12")
    found = browser.run(WHAT_IS_SHOWN)
    assert (found["file"], found["steps"]) == ([], [])
    said = "return [...document.querySelectorAll('.none')].filter(one => one.checkVisibility())"
    assert browser.run(f"{said}.map(one => one.innerText);") == [
        "This version does not have this image."
    ]
    # A link to a hypervisor chooses an architecture that it opens.
    browser.open("about:blank")
    browser.open(f"{url}#utm")
    assert browser.run(WHAT_IS_SHOWN)["file"] == ["nfs-debian-13-arm64.utm.zip"]


def test_without_javascript_each_file_says_what_it_is_for(
    url: str, browser: Browser, folder: Path
) -> None:
    browser.open(url, script=False)
    shown = browser.run("return document.querySelector('section.choice').innerText;")
    for words in (TITLES["debian-12"], TITLES["debian-13"], X86, ARM):
        assert words in shown
    assert browser.run("return document.getElementById('pick').checkVisibility();") is False
    files = "return [...document.querySelectorAll('a.get')].map(one => one.innerText);"
    published = [file.name for image in release(folder, BOTH).images for file in image.files]
    assert set(browser.run(files)) == {*published}


def test_one_architecture_and_one_base_are_no_choice(folder: Path) -> None:
    text = page.render_page(
        index.make_index("AB" * 20, [release(folder, [("debian-12", "amd64")])])
    )
    assert re.findall(r'<input type="radio" name="(\w+)"', text).count("arch") == 0
    assert 'name="base"' not in text
    assert Page(text).hidden == ["form"]
    assert X86 not in text


def test_an_architecture_of_the_future_is_shown(folder: Path) -> None:
    text = page.render_page(
        index.make_index("AB" * 20, [release(folder, [("debian-20", "riscv64")])])
    )
    assert text.count('data-arch="riscv64"') == 2 * len(page.hypervisors())
