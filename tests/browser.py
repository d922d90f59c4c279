"""A headless Chromium for tests and pictures of reports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars"),
)


def missing() -> str:
    """What this machine lacks for a browser; "" where there is one."""
    lacking = [] if any(map(shutil.which, _NAMES)) else ["Chromium"]
    lacking += [] if shutil.which("chromedriver") else ["chromedriver"]
    return " and ".join(lacking)


@contextmanager
def chromium(profile: Path, width: int = 1000, height: int = 800) -> Iterator[Any]:
    """A browser with an empty profile in the folder ``profile``, which logs console and network."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, _NAMES)))
    for argument in (*_QUIET, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options, ChromeService(shutil.which("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


def resized(browser: Any, width: int, height: int = 844) -> None:
    """A page of this width, however narrow."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def dark(browser: Any, on: bool) -> None:
    """A reader who prefers dark pages, or light ones."""
    feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
