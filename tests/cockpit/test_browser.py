"""The pages in a real browser: what they forbid themselves, what they do by themselves, and without script.

Skipped where no Chromium is installed.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from tests.cockpit.site_rows import a_worker, fill
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.integration.site import PATIENCE, ROOT

pytestmark = pytest.mark.databases("sqlite")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGES = (
    "overview/", "queue/", "queue/mail/change/", "tasktype/", "tasktype/tests.app.tasks.add/change/", "health/",
    "worker/",
)  # fmt: skip


@pytest.fixture
def site_url(database: TestDatabase, tmp_path: Path) -> Iterator[str]:
    """Give the address of a served site that has been at work for an hour."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    User.objects.create_superuser("root", password="root")  # noqa: S106 - guards nothing
    fill()
    environ = {**database.environ(), "DJANGO_SETTINGS_MODULE": "tests.cockpit.browser_settings"}
    command = [sys.executable, "-m", "tests.manage", "runserver", "--noreload", "--insecure", address]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=subprocess.STDOUT)
    try:
        eventually(lambda: _answers(f"http://{address}/admin/login/"), timeout=60, message="no server")
        yield f"http://{address}/admin/django_tasks/"
    finally:
        server.kill()
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own server
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture
def chromium(site_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a browser in which nobody is logged in."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # Playwright has a loop running in this thread
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def log_in(browser: Any, site_url: str, **options: Any) -> tuple[Any, list[str]]:
    """Return a page of someone who may do everything, and what the browser complains of."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(1000 * PATIENCE)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(site_url)
    page.fill("#id_username", "root")
    page.fill("#id_password", "root")
    page.click("input[type=submit]")
    complaints.clear()  # of an icon that no test site has
    return page, complaints


def test_no_page_breaks_the_strictest_policy_or_a_narrow_screen(chromium: Any, site_url: str) -> None:
    for scheme, width in (("light", 1280), ("dark", 390)):
        page, complaints = log_in(chromium, site_url, color_scheme=scheme, viewport={"width": width, "height": 844})
        for name in PAGES:
            page.goto(site_url + name)
            if name != "worker/":  # the admin's own list, which scrolls by itself
                assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert not complaints


def test_a_page_that_is_looked_at_follows_what_happens(chromium: Any, site_url: str) -> None:
    page, complaints = log_in(chromium, site_url)
    page.goto(f"{site_url}overview/")
    page.get_by_text("Show as table").first.click()
    page.select_option("[data-djt-every]", "2")
    a_worker("late-comer")
    page.get_by_text("late-comer").first.wait_for()
    assert page.locator("details[open]").count() == 1, "what was opened was shut"
    assert re.match(r"updated \d", page.inner_text("[data-djt-said]"))
    page.reload()
    assert page.input_value("[data-djt-every]") == "2"
    assert not complaints
    page.context.clear_cookies()
    page.get_by_text("you are no longer logged in").wait_for()
    assert page.input_value("[data-djt-every]") == "0", "it goes on asking"


def test_everything_can_be_done_without_any_script(chromium: Any, site_url: str) -> None:
    page, complaints = log_in(chromium, site_url, java_script_enabled=False)
    page.goto(f"{site_url}overview/")
    assert not page.locator("[data-djt-every]").is_visible()
    page.get_by_role("link", name="mail", exact=True).first.click()
    page.fill("#id_reason", "Server down")
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("Paused by root").wait_for()
    assert page.get_by_text("Server down").count() == 3, "in the message, in the banner and in the history"
    page.get_by_role("button", name="Empty the queue").click()
    page.fill("#id_name", "mail")
    page.get_by_role("button", name="Delete them").click()
    page.get_by_text("31 tasks deleted.").first.wait_for()
    page.goto(f"{site_url}tasktype/tests.app.tasks.add/change/")
    page.get_by_label("x:").fill("4")
    page.get_by_role("button", name="Send").click()
    page.get_by_text("Sent:").wait_for()
    assert not complaints
