"""Every button of every page is pressed, and each question answered with yes."""

from __future__ import annotations

from typing import Any

import pytest

from django_tasks.models import Task, TaskResult
from tests.browser.served import keep, log_in, press
from tests.rows import KNOWN, failure, saved, waiting

pytestmark = [pytest.mark.databases("sqlite"), pytest.mark.timeout(600)]

#: What leads to another page, or to the same with something done; the sidebar and the head are Django's.
BUTTONS = (
    "#content button:not([type=button]):visible, #content input[type=submit]:visible, "
    "#content .object-tools a:visible, #content a.button:visible"
)
#: What shows or does something on the page itself.
FOLDS = "#content summary:not(#changelist-filter *):visible, #content button[type=button]:not(.djt-keys-open):visible"
#: Pages with the same buttons as others.
ALIKE = ("overview of a week", "tasks that run", "tasks searched", "task that retries", "revoked task", "long queue")
#: What a question asks for besides a yes.
ANSWERS = {"#id_queue": "default", "#id_eta_0": "2030-01-31", "#id_eta_1": "12:00:00"}
#: What the fields of pages are filled with before a button is pressed.
FIELDS = {
    "#id_to": "default",
    "#id_reason": "Server down",
    "[name=arg-picture]": "summer.jpg",
    "#id_desk_task_name": KNOWN,
    "#id_desk_soft": "2.5",
}


@pytest.fixture
def rows(pages: dict[str, str]) -> dict[str, list[str]]:
    """Give pages of rows of which each press may use up one."""
    tasks = saved([waiting(name=KNOWN) for _ in range(30)])
    results = saved([failure(name=KNOWN) for _ in range(30)])
    return {
        "running task": [f"task/{row.pk}/change/" for row in tasks],
        "failed task": [f"taskresult/{row.pk}/change/" for row in results],
    }


def test_every_button_works(pages: dict[str, str], rows: dict[str, list[str]], chromium: Any, site_url: str) -> None:
    page, complaints = log_in(chromium, site_url)
    pressed = 0
    for name, path in pages.items():
        if name in ALIKE:
            continue
        paths = iter(rows.get(name, ()))
        page.goto(site_url + next(paths, path))
        for fold in page.locator(FOLDS).all():
            fold.click()
            page.keyboard.press("Escape")  # a calendar would lie above the next one
            pressed += 1
        place = 0
        while place < page.locator(BUTTONS).count():  # what is pressed may take others away, and bring new ones
            _press(page, name, place)
            assert not complaints, name
            page.goto(site_url + next(paths, path))
            place += 1
        pressed += place
    assert pressed > 80


def _press(page: Any, name: str, place: int) -> None:
    button = page.locator(BUTTONS).nth(place)
    what = f"{name}: {(button.text_content() or '').strip() or button.get_attribute('value')}"
    _fill(page, FIELDS)
    press(button)
    _say_yes(page, what)


def test_every_action_of_a_list_works(pages: dict[str, str], chromium: Any, site_url: str) -> None:
    page, complaints = log_in(chromium, site_url)
    for model in ("task", "taskresult", "worker", "periodictask", "limit"):
        _choose_each_action(page, complaints, site_url, model)


def _choose_each_action(page: Any, complaints: list[str], site_url: str, model: str) -> None:
    page.goto(f"{site_url}{model}/")
    actions = page.locator("select[name=action] option").evaluate_all("all => all.map((one) => one.value)")
    assert len(actions) > 2
    for action in filter(None, actions):
        page.goto(f"{site_url}{model}/")
        page.select_option("select[name=action]", action)
        page.locator("input.action-select").first.check()
        press(page.locator("[name=index]").first)
        _say_yes(page, f"{model}: {action}")
        assert page.locator(".messagelist li").count(), f"{model}: {action} says nothing"
        assert not complaints, action


def _say_yes(page: Any, what: str) -> None:
    """Answer the question on this page, if it is one, with yes."""
    if not page.locator("#content form .cancel-link:visible").count() or "/edit/" in page.url:
        return
    keep(page, f"question {what.replace(':', '')}")
    queue = page.url.partition("/queue/")[2].partition("/")[0]
    _fill(page, {**ANSWERS, "#id_name": queue})
    press(page.locator("#content form [type=submit]:visible").first)
    said = page.locator(".messagelist li").count()
    assert said or "/bulkoperation/" in page.url, (
        f"{what}: nothing is said after the yes:\n{page.inner_text('#content')}"
    )


def _fill(page: Any, values: dict[str, str]) -> None:
    for selector, value in values.items():
        field = page.locator(f"#content {selector}:visible")
        if field.count() and not field.input_value():
            field.fill(value)


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_all_that_match_run_again(pages: dict[str, str], chromium: Any, site_url: str, script: bool) -> None:
    """The whole way, as a person goes it: choose all, be asked, say yes, and stop it."""
    page, complaints = log_in(chromium, site_url, java_script_enabled=script)
    page.goto(site_url + pages["results"])
    page.select_option("select[name=action]", "retry")
    page.check("input[name=select_across]")
    press(page.locator("button[name=index]"))
    assert "24 rows." in page.inner_text("#content")
    page.click("input[type=submit][value='Yes, run again']")
    page.wait_for_url("**/bulkoperation/*/change/")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("stops after the present batch").wait_for()
    assert not complaints


def test_everything_can_be_done_without_any_script(pages: dict[str, str], chromium: Any, site_url: str) -> None:
    page, complaints = log_in(chromium, site_url, java_script_enabled=False)
    page.goto(f"{site_url}overview/")
    assert not page.locator("[data-djt-every]").is_visible()
    page.get_by_role("link", name="mail", exact=True).first.click()
    page.fill("#id_reason", "Server down")
    press(page.get_by_role("button", name="Pause"))
    page.get_by_text("Paused by root").wait_for()
    assert page.get_by_text("Server down").count() == 3, "in the message, in the banner and in the history"
    page.get_by_role("button", name="Empty the queue").click()
    page.fill("#id_name", "mail")
    page.get_by_role("button", name="Delete them").click()
    page.get_by_text("tasks deleted.").first.wait_for()
    page.goto(f"{site_url}tasktype/tests.app.tasks.add/change/")
    page.get_by_label("x:").fill("4")
    page.get_by_role("button", name="Send").click()
    page.get_by_text("Sent:").wait_for()
    page.goto(site_url + pages["worker"])
    page.fill("#id_desk_task_name", KNOWN)
    page.get_by_label("Soft time limit").fill("9.5")
    page.get_by_label("Hard time limit").fill("2")
    page.get_by_role("button", name="Set its time limits").click()
    page.get_by_text("At most as long as the hard one.").wait_for()
    assert page.get_by_label("Soft time limit").get_attribute("aria-invalid") == "true"
    keep(page, "refused time limits")
    page.get_by_label("Hard time limit").fill("12")
    page.get_by_role("button", name="Set its time limits").click()
    page.get_by_text("Set its time limits: 0 of 1 did so").wait_for()
    assert not complaints


def test_what_was_pressed_is_done(pages: dict[str, str], chromium: Any, site_url: str) -> None:
    page, complaints = log_in(chromium, site_url)
    [task, result] = saved([waiting(name=KNOWN)]) + saved([failure(name=KNOWN)])
    for path, button in ((f"task/{task.pk}", "Cancel"), (f"taskresult/{result.pk}", "Run again")):
        page.goto(f"{site_url}{path}/change/")
        press(page.get_by_role("button", name=button, exact=True))
        _say_yes(page, button)
    assert not Task.objects.filter(pk=task.pk).exists()
    assert TaskResult.objects.get(pk=task.pk).state == "REVOKED"
    assert page.get_by_text("The new task:").count() == 1
    assert not complaints
