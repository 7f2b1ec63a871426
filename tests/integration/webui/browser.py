"""Debian's Chromium with its driver. Tests fail on console errors and on foreign requests."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
QUIET += [
    "--disable-component-update",
    "--disable-sync",
    "--no-default-browser-check",
    "--window-size=1400,1000",
]


def missing() -> str | None:
    """What to install before the browser can be driven; None when all is there."""
    packages = {"chromium": "chromium", "chromedriver": "chromium-driver"}
    lacking = [package for program, package in packages.items() if shutil.which(program) is None]
    return f"needs Debian's Chromium: apt-get install {' '.join(lacking)}" if lacking else None


class Browser:
    """One window. A page may request only addresses of this machine, 127.x.y.z.

    `arguments` are further ones of Chromium.
    """

    def __init__(self, profile: Path, *arguments: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in (*QUIET, *arguments, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(
            service=Service(shutil.which("chromedriver")), options=options
        )

    def quit(self) -> None:
        self.driver.quit()

    def open(self, url: str) -> None:
        """Open a page and wait until it has read the cluster once."""
        self.driver.get("about:blank")
        self.driver.get(url)
        self.until(lambda: "live" in self.text("#pulse"))

    def size(self, width: int, height: int) -> None:
        """The size of the part that pages see."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def until(self, condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
        """Wait for something true; a page that is being redrawn or left is looked at again."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                if value := condition():
                    return value
            except (StaleElementReferenceException, IndexError):
                pass
            if time.monotonic() > end:
                raise TimeoutError(
                    f"not in {timeout_s:g} s; the page at {self.driver.current_url} shows:\n"
                    f"{self.text('body')}"
                )
            time.sleep(0.1)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def first(self, selector: str) -> WebElement:
        return self.all(selector)[0]

    def text(self, selector: str) -> str:
        return " ".join(element.text for element in self.all(selector))

    def rows(self, table: str) -> list[str]:
        """The texts of a table's rows, read at one moment."""
        script = (
            "return [...document.getElementById(arguments[0]).tBodies[0].rows]"
            ".map((row) => row.innerText)"
        )
        return [" ".join(row.split()) for row in self.run(script, table)]

    def row(self, table: str, word: str) -> str:
        """The first row with this word, or ""."""
        return next((row for row in self.rows(table) if word in row), "")

    def button(self, text: str, within: str = "body") -> WebElement:
        return next(
            button
            for button in self.all(f"{within} button")
            if button.text == text and button.is_displayed()
        )

    def fill(self, form: str, **fields: Any) -> None:
        for name, value in fields.items():
            field = self.first(f"{form} [name={name}]")
            field.clear()
            field.send_keys(str(value))

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def console_messages(self) -> list[str]:
        """Messages in the console since the last call."""
        entries = self.driver.get_log(
            "browser"
        )  # the browser's own first page, opened before ours, may have its say there too
        return [
            f"{entry['level']}: {entry['message']}"
            for entry in entries
            if not entry["message"].startswith("chrome")
        ]

    def foreign_requests(self) -> list[str]:
        """Requests to others than the cluster since the last call."""
        messages = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        asked = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        ours = ("about", "data", "blob", "chrome", "chrome-untrusted")
        return [
            url
            for url in asked
            if urlsplit(url).scheme not in ours
            and not (urlsplit(url).hostname or "").startswith("127.")
        ]
