"""What the keyboard does."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User

from tests.browser.served import log_in

pytestmark = pytest.mark.databases("sqlite")


def test_keys_lead_everywhere(pages: dict[str, str], chromium: Any, site_url: str) -> None:
    page, complaints = log_in(chromium, site_url)
    page.goto(f"{site_url}limit/")
    for key, path in (("o", "overview"), ("t", "task"), ("p", "periodictask"), ("q", "queue"), ("w", "worker")):
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(f"{site_url}{path}/")
    page.keyboard.press("/")  # there is nothing to search in workers
    page.wait_for_url(f"{site_url}task/#searchbar")
    page.wait_for_function("document.activeElement.id === 'searchbar'")
    page.keyboard.type("queue:mail go?")
    assert page.input_value("#searchbar") == "queue:mail go?", "keys are text where text is typed"
    assert page.url == f"{site_url}task/#searchbar"
    page.goto(f"{site_url}taskresult/")
    page.keyboard.press("/")
    page.keyboard.type("exc:ValueError")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site_url}taskresult/?q=exc%3AValueError")
    assert not complaints


def test_keys_can_be_looked_up_and_switched_off(pages: dict[str, str], chromium: Any, site_url: str) -> None:
    page, complaints = log_in(chromium, site_url)
    page.goto(f"{site_url}overview/")
    page.keyboard.press("?")
    help_ = page.get_by_role("dialog", name="Keyboard shortcuts")
    assert help_.get_by_role("link", name="Queues").is_visible()
    help_.get_by_label("These keys are on").uncheck()
    page.keyboard.press("Escape")
    page.reload()
    page.keyboard.press("?")
    assert not help_.is_visible()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    help_.get_by_label("These keys are on").check()
    help_.get_by_role("button", name="Close").click()
    page.keyboard.press("?")
    assert help_.is_visible()
    assert not complaints


def test_l_and_r_are_about_what_is_live(pages: dict[str, str], chromium: Any, site_url: str) -> None:
    page, complaints = log_in(chromium, site_url)
    page.goto(f"{site_url}overview/")
    page.keyboard.press("l")
    assert page.input_value("[data-djt-every]") == "0"
    with page.expect_response(lambda answer: "fragment=1" in answer.url):
        page.keyboard.press("r")
    page.keyboard.press("l")
    assert page.input_value("[data-djt-every]") == "5"
    page.goto(f"{site_url}limit/")
    with page.expect_navigation():
        page.keyboard.press("r")
    assert not complaints


def test_keys_lead_only_where_one_may_go(pages: dict[str, str], chromium: Any, site_url: str) -> None:
    User.objects.filter(username="root").update(is_superuser=False, is_staff=True)
    User.objects.get().user_permissions.set(Permission.objects.filter(codename__in=("view_queue", "view_overview")))
    page, complaints = log_in(chromium, site_url)
    page.goto(f"{site_url}overview/")
    page.keyboard.press("?")
    assert page.locator(".djt-keys a").all_inner_texts() == ["Overview", "Queues"]
    assert not complaints
