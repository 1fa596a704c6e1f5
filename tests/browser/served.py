"""A site in a process of its own, and a browser that is logged in there."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.databases import TestDatabase, forget_connections
from tests.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
#: Seconds after which a wait fails: several times what a busy machine with two cores needs.
PATIENCE = 60.0
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: A phone's screen in pixels.
PHONE = {"width": 390, "height": 844}


@contextmanager
def served(database: TestDatabase, directory: Path, settings: str, **environ: str) -> Iterator[str]:
    """Serve the admin on this database with these settings; give the address of the pages of tasks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environ = {**database.environ(), "DJANGO_SETTINGS_MODULE": settings, **environ}
    command = [sys.executable, "-m", "tests.manage", "runserver", "--noreload", "--insecure", address]
    log = directory / "server.log"
    with log.open("wb") as file:
        server = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=file, stderr=subprocess.STDOUT)
    try:
        eventually(lambda: _answers(server, log, f"http://{address}/admin/login/"), timeout=PATIENCE)
        yield f"http://{address}/admin/django_tasks/"
    finally:
        server.kill()
        server.wait()


def _answers(server: subprocess.Popen[bytes], log: Path, url: str) -> bool:
    if server.poll() is not None:
        raise RuntimeError(f"the server ended:\n{log.read_text(errors='replace')}")
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own server
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


class Chromium:
    """One browser for all tests of this process: with its driver it takes a second and a half of a processor to start.

    Playwright leaves its loop marked as running in this thread. Other tests have loops of their own there, so it is
    marked only while somebody is at the browser.
    """

    def __init__(self) -> None:
        from playwright.sync_api import sync_playwright  # it takes a while, and few processes need it

        self._playwright = sync_playwright().start()
        self._loop = asyncio.get_running_loop()
        try:
            self._browser = self._launch()
        finally:
            asyncio._set_running_loop(None)

    def _launch(self) -> Any:
        return self._playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

    @contextmanager
    def at(self) -> Iterator[Any]:
        """Give the browser; nobody is logged in there, and what was opened is closed at the end."""
        asyncio._set_running_loop(self._loop)
        try:
            if not self._browser.is_connected():
                self._browser = self._launch()
            yield self._browser
            for context in self._browser.contexts:
                context.close()
        finally:
            forget_connections()  # while Playwright's loop is marked, this thread has other ones
            asyncio._set_running_loop(None)

    def close(self) -> None:
        """End the browser and its driver."""
        asyncio._set_running_loop(self._loop)
        self._browser.close()
        self._playwright.stop()
        asyncio._set_running_loop(None)


@contextmanager
def chromium() -> Iterator[Any]:
    """Give a browser of one's own in which nobody is logged in. There must be a Chromium."""
    with closing(Chromium()) as own, own.at() as browser:
        yield browser


def log_in(browser: Any, site_url: str, **options: Any) -> tuple[Any, list[str]]:
    """Return a page of someone who may do everything, and a list of what is wrong from now on: what the browser
    complains of (its policy, scripts, drawings), and answers that are errors."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(1000 * PATIENCE)
    complaints: list[str] = []
    page.on(
        "console",
        lambda message: complaints.append(f"{page.url}: {message.text}") if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    page.goto(site_url)
    page.fill("[name=username]", "root")
    page.fill("[name=password]", "root")
    press(page.locator("[type=submit]").first)
    assert "/login/" not in page.url
    complaints.clear()  # of an icon that no test site has
    page.on(
        "response",
        lambda answer: complaints.append(f"{answer.url}: {answer.status}") if answer.status >= 400 else None,
    )
    return page, complaints


def press(button: Any) -> None:
    """Press what leads to another page, and wait until that is there.

    A click alone returns when it did not see a navigation begin at once, as on a busy machine. Whoever goes elsewhere
    then calls off what the press has sent.
    """
    with button.page.expect_navigation():
        button.click()


def keep(page: Any, name: str) -> None:
    """Keep a picture of the page if ``SCREENSHOTS`` names a directory."""
    if directory := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=str(Path(directory) / f"{name.replace(' ', '-')}.png"), full_page=True)
