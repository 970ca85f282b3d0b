"""A real headless Chromium, with what it says and what it asks for."""

import shutil
from contextlib import contextmanager

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
)


@contextmanager
def chromium(width=1000, height=1400):
    """A selenium driver; skips where Chromium or its driver is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip(
            "Chromium is not installed: apt-get install chromium chromium-driver"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield made
    finally:
        made.quit()


def complaints(driver):
    """Errors and warnings of the console, violations of the policy among them."""
    return [
        entry["message"]
        for entry in driver.get_log("browser")
        if entry["level"] in ("SEVERE", "WARNING")
    ]


def requests(driver):
    """Addresses that were asked for, beside files and data that the page carries."""
    import json

    asked = [
        json.loads(entry["message"])["message"]
        for entry in driver.get_log("performance")
    ]
    urls = [
        m["params"]["request"]["url"]
        for m in asked
        if m["method"] == "Network.requestWillBeSent"
    ]
    return [
        url for url in urls if not url.startswith(("file:", "data:", "about:", "blob:"))
    ]
