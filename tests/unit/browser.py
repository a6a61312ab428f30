"""A real Chromium for the tests of pages, with what it asked for and complained about."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

DEADLINE = 60  # seconds for a page


@contextmanager
def browser() -> Iterator[Chrome]:
    """A browser of its own; `show` opens pages in it."""
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-chromium-") as profile:
        options = ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for argument in (
            *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
            *("disable-background-networking", "disable-component-update", "disable-sync"),
            *("disable-dev-shm-usage", "hide-scrollbars", f"user-data-dir={profile}"),
        ):
            options.add_argument(f"--{argument}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = Chrome(options, Service("/usr/bin/chromedriver"))
        try:
            driver.set_page_load_timeout(DEADLINE)
            yield driver
        finally:
            driver.quit()


def show(
    driver: Chrome, url: str, width: int = 1280, *, script: bool = True, dark: bool = False
) -> None:
    """Open a page `width` CSS pixels wide; without `script` it runs none."""
    # A window would not become as narrow as a phone.
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    # What an earlier page has said and asked for is not this one's.
    complaints(driver)
    requested(driver)
    driver.get(url)


def complaints(driver: Chrome) -> list[str]:
    """What the console says since it was last asked."""
    return [entry["message"] for entry in driver.get_log("browser")]


def requested(driver: Chrome) -> list[str]:
    """The URLs that were asked for since this was last called; the browser's own are left out."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    urls = [params["request"]["url"] for params in sent]
    return [url for url in urls if not url.startswith(("chrome://", "data:"))]
