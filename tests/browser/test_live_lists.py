"""Lists that follow what happens: off until switched on, and never away under what is being chosen."""

from __future__ import annotations

from typing import Any

import pytest

from django_tasks.models import Task
from tests.browser.served import log_in
from tests.browser.test_live import answers, wait_for
from tests.rows import saved, waiting

pytestmark = pytest.mark.databases("sqlite")


def tick(page: Any, seen: list[int]) -> None:
    """Let time pass until the list was asked for once more."""
    before = len(seen)
    page.clock.run_for(6_000)
    wait_for(page, lambda: len(seen) > before)


def test_a_list_follows_what_happens_unless_something_is_chosen(
    pages: dict[str, str], chromium: Any, site_url: str
) -> None:
    Task.objects.all().delete()
    first, second = saved([waiting(queue="mail"), waiting(queue="mail")])
    page, complaints = log_in(chromium, site_url)
    page.clock.install()
    seen = answers(page)
    page.goto(f"{site_url}task/")
    page.clock.run_for(60_000)
    assert not seen, "it is off until somebody wants it"
    page.select_option("[data-djt-every]", "5")
    saved([waiting(name="late.comer", queue="mail")])
    link = page.locator(f'a[href*="{first.pk}/change/"]')
    link.focus()
    tick(page, seen)
    page.get_by_text("late.comer").wait_for()
    assert page.evaluate("document.activeElement.href").count(str(first.pk)), "the focus is lost"
    assert "0 of 3 selected" in page.inner_text(".actions")
    page.click("#action-toggle")
    assert page.locator("tr.selected").count() == 3, "what came is not chosen with all"
    assert "3 of 3 selected" in page.inner_text(".actions")
    saved([waiting(name="much.later", queue="mail")])
    seen.clear()
    page.clock.run_for(60_000)
    assert not seen, "it moved rows away under what is chosen"
    page.click("#action-toggle")
    tick(page, seen)
    page.get_by_text("much.later").wait_for()
    box = page.locator(f'[value="{second.pk}"]')
    box.check()
    assert "1 of 4 selected" in page.inner_text(".actions")
    box.uncheck()
    page.locator("h1").first.click()  # the focus is in no field any more
    page.click(".djt-own summary")
    seen.clear()
    page.clock.run_for(60_000)
    assert not seen, "the menu was open"
    page.click(".djt-own summary")
    Task.objects.exclude(pk=second.pk).delete()
    tick(page, seen)
    wait_for(page, lambda: page.locator("#result_list tbody tr").count() == 1)
    assert "1 task" in page.inner_text(".djt-pages")
    Task.objects.all().delete()
    tick(page, seen)
    wait_for(page, lambda: page.locator("#result_list tbody tr").count() == 0)
    saved([waiting(name="back.again")])
    tick(page, seen)
    page.get_by_text("back.again").wait_for()
    page.reload()
    assert page.input_value("[data-djt-every]") == "5"
    page.goto(f"{site_url}overview/")
    assert page.input_value("[data-djt-every]") == "5"  # what it is by itself
    assert page.evaluate("localStorage.getItem('django_tasks.every')") is None, "it switches other pages"
    assert not complaints
