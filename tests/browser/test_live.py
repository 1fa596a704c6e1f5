"""Pages that follow what happens: how they ask, when they stop, and what they leave as it is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.served import log_in
from tests.cockpit.site_rows import a_worker
from tests.eventually import eventually

pytestmark = pytest.mark.databases("sqlite")

#: Makes the tab look hidden, or shown again, as the browser itself says it.
HIDDEN = """is => {
    Object.defineProperty(document, "hidden", { configurable: true, value: is });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def answers(page: Any) -> list[int]:
    """Return the states of all answers to what the page asks from now on."""
    seen: list[int] = []
    page.on("response", lambda answer: seen.append(answer.status) if "fragment=1" in answer.url else None)
    return seen


def wait_for(page: Any, condition: Any) -> None:
    """Wait, and let the browser tell meanwhile what it does."""

    def look() -> bool:
        page.wait_for_timeout(20)
        return bool(condition())

    eventually(look, timeout=60)


def test_a_page_that_is_looked_at_follows_what_happens(pages: dict[str, str], chromium: Any, site_url: str) -> None:
    page, complaints = log_in(chromium, site_url, viewport={"width": 390, "height": 600})
    page.goto(f"{site_url}overview/")
    table = page.get_by_text("Show as table").first
    table.click()
    table.focus()
    page.locator("details[open] .djt-scroll").evaluate("one => { one.scrollTop = 40 }")
    scrolled = page.evaluate("scrollY")
    page.select_option("[data-djt-every]", "2")
    table.focus()
    a_worker("late-comer")
    page.get_by_text("late-comer").first.wait_for()
    assert page.locator("details[open]").count() == 1, "what was opened was shut"
    assert page.locator("details[open] .djt-scroll").evaluate("one => one.scrollTop") == 40
    assert page.evaluate("document.activeElement.innerText") == "Show as table", "the focus is lost"
    assert abs(page.evaluate("scrollY") - scrolled) < 200
    assert re.match(r"updated \d", page.inner_text("[data-djt-said]"))
    page.reload()
    assert page.input_value("[data-djt-every]") == "2"
    assert not complaints
    page.context.clear_cookies()
    page.get_by_text("you are no longer logged in").wait_for()
    assert page.input_value("[data-djt-every]") == "0", "it goes on asking"


def test_what_is_known_is_not_sent_again(pages: dict[str, str], chromium: Any, site_url: str) -> None:
    page, complaints = log_in(chromium, site_url)
    page.goto(f"{site_url}tasktype/")
    seen = answers(page)
    page.select_option("[data-djt-every]", "2")
    wait_for(page, lambda: 304 in seen)
    assert set(seen) <= {200, 304}
    assert not complaints


def test_nobody_is_asked_while_the_tab_is_hidden(pages: dict[str, str], chromium: Any, site_url: str) -> None:
    page, complaints = log_in(chromium, site_url)
    page.clock.install()
    page.goto(f"{site_url}overview/")
    seen = answers(page)
    page.clock.run_for(6000)
    wait_for(page, lambda: len(seen) == 1)
    page.evaluate(HIDDEN, True)
    page.clock.run_for(60_000)
    page.evaluate(HIDDEN, False)
    wait_for(page, lambda: len(seen) == 2)
    assert len(seen) == 2, "it asked while it was hidden"
    assert not complaints


def test_it_stops_when_nobody_is_there(pages: dict[str, str], chromium: Any, site_url: str) -> None:
    page, complaints = log_in(chromium, site_url)
    page.clock.install()
    page.goto(f"{site_url}overview/")
    seen = answers(page)
    page.mouse.move(5, 5)
    page.clock.fast_forward(31 * 60 * 1000)
    page.get_by_text("paused, because nobody was here").wait_for()
    seen.clear()
    page.clock.run_for(60_000)
    assert not seen, "it goes on asking"
    page.mouse.move(50, 50)
    page.clock.run_for(6000)
    wait_for(page, lambda: seen)
    assert not complaints


def test_it_asks_on_when_the_site_is_back(pages: dict[str, str], chromium: Any, site_url: str) -> None:
    page, _complaints = log_in(chromium, site_url)
    page.goto(f"{site_url}overview/")
    page.select_option("[data-djt-every]", "2")
    page.context.set_offline(True)
    page.get_by_text("not reachable, trying again").wait_for()
    page.context.set_offline(False)
    page.get_by_text(re.compile(r"updated \d")).wait_for()
