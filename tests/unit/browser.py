"""Chromium, driven through WebDriver, to test pages as readers see them."""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from collections.abc import Iterator
from typing import Any

from axe_core_python.selenium import Axe
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from hyraxvm.core.workspace import Workspace

DESKTOP = (1280, 900)  # CSS pixels
PHONE = (390, 844)
PICTURES = Workspace.here().reports / "pages"
_SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Browser:
    """One window; every page is opened at a given size, with or without JavaScript."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(
        self,
        url: str,
        size: tuple[int, int] = DESKTOP,
        *,
        script: bool = True,
        dark: bool = False,
    ) -> None:
        """Open a page, wait until it is loaded; forget earlier messages and requests."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.command("Emulation.setDeviceMetricsOverride", **metrics, mobile=width <= PHONE[0])
        self.command("Emulation.setScriptExecutionDisabled", value=not script)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        self.complaints()
        self.requested()
        self.driver.get(url)

    def command(self, name: str, **arguments: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page, even if the page's own JavaScript is switched off."""
        self.command("Emulation.setScriptExecutionDisabled", value=False)
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """Return the console's new messages: errors, missing files, refused content."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> list[str]:
        """Return the URLs requested since the last call, without the browser's own pages."""
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        urls = [params["request"]["url"] for params in sent]
        return [url for url in urls if not url.startswith(("chrome://", "data:"))]

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window; should be 0."""
        return int(
            self.run(
                "const page = document.documentElement;"
                "return Math.max(0, page.scrollWidth - page.clientWidth);"
            )
        )

    def barriers(self) -> list[str]:
        """Return the barriers to access that axe-core finds: contrast, names, structure, focus."""
        # A page reads the half megabyte of JavaScript once; only violations are described.
        axe = Axe("") if self.run("return 'axe' in window") else Axe()
        found = axe.run(self.driver, options={"resultTypes": ["violations"]})["violations"]
        return [
            f"{one['id']}: {node['html'][:200]}: {node['failureSummary']}"
            for one in found
            for node in one["nodes"]
        ]

    def picture(self, name: str) -> None:
        """Save the whole page as artifacts/reports/pages/NAME.png, for people to look at."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        shot = self.command(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=True,
            optimizeForSpeed=True,
        )
        (PICTURES / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium with a fresh profile, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        options = ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        # Both paths are given, so that Selenium does not search the network for them.
        driver = Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        try:
            driver.set_page_load_timeout(60)
            yield Browser(driver)
        finally:
            driver.quit()
