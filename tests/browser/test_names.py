"""The name of a task that nobody knows, as a person types it: asked about, and kept after a yes."""

from __future__ import annotations

from typing import Any

import django
import pytest

from django_tasks import task_names
from django_tasks.models import PeriodicTask, Worker
from tests.browser.served import PHONE, keep, log_in, press
from tests.browser.test_tour import axe

pytestmark = [pytest.mark.databases("sqlite"), pytest.mark.timeout(600)]

LOOKS: dict[str, dict[str, Any]] = {
    "script": {},
    "no script": {"java_script_enabled": False},
    "dark phone": {"color_scheme": "dark", "viewport": PHONE},
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_name_that_nobody_knows_is_kept_after_a_yes(
    pages: dict[str, str], chromium: Any, site_url: str, look: str
) -> None:
    page, complaints = log_in(chromium, site_url, **LOOKS[look])
    ask(page, site_url, look)
    if look != "no script" and django.VERSION >= (6, 1):
        assert axe(page, {}) == {}
        complaints.clear()  # axe tries styles
    say_yes(page, look)
    assert not complaints


def ask(page: Any, site_url: str, look: str) -> None:
    """Give the name that nobody knows, where workers know some that the site does not."""
    told = task_names.declare(["forecasts.tasks.train", "forecasts.tasks.predict"])
    Worker.objects.update(task_names=told)
    page.goto(f"{site_url}periodictask/add/")
    group = page.locator("#id_task optgroup[label^='known to workers only']")
    assert group.locator("option").all_text_contents() == ["forecasts.tasks.predict", "forecasts.tasks.train"]
    assert not page.locator("#id_keep_unknown").count()
    for field, value in {"name": "Forecast", "other_task": "forecasts.tasks.trian", "every": "10"}.items():
        page.fill(f"#id_{field}", value)
    press(page.locator("[name=_save]").first)
    page.get_by_text("Did you mean forecasts.tasks.train?").wait_for()
    keep(page, f"a name that nobody knows {look}")


def say_yes(page: Any, look: str) -> None:
    """Answer what is asked then; look at the list, and at the row."""
    page.get_by_label("Keep forecasts.tasks.trian although nothing that runs knows it").check()
    press(page.locator("[name=_save]").first)
    page.get_by_text("No running worker says that it knows forecasts.tasks.trian").first.wait_for()
    keep(page, f"list with a name that nobody knows {look}")
    row = PeriodicTask.objects.get(name="Forecast")
    assert row.task == "forecasts.tasks.trian"
    page.goto(page.url.partition("?")[0] + f"{row.pk}/change/")
    keep(page, f"row with a name that nobody knows {look}")
