"""How far a task is, for a site's own pages: the address, who may ask it, and the bar."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core import signing
from django.template import Context, Template
from django.test import Client

from django_tasks import states, views
from tests.admin.conftest import Browser
from tests.admin.pages import Tags
from tests.rows import failure, finished, saved, waiting

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
def running(browser: Browser) -> Any:
    meta = json.dumps({"current": 1, "total": 3, "secret": "canary"})
    [row] = saved([waiting(state=states.STARTED, custom_state="PROGRESS", meta=meta, worker_id=1, slot=0)])
    return row


def test_whoever_has_a_signed_address_is_told_how_far_a_task_is_and_nothing_else(running: Any) -> None:
    answer = Client().get(views.progress_url(str(running.pk)))
    assert answer.json() == {
        "state": "PROGRESS", "finished": False, "current": 1, "total": 3, "percent": 33.3,
    }  # fmt: skip
    assert "no-store" in answer.headers["Cache-Control"]
    assert Client().post(views.progress_url(str(running.pk))).status_code == 405


def test_the_end_is_told(running: Any) -> None:
    [good, bad] = saved([finished(), failure()])
    assert views.progress_of(str(good.pk)) | {"current": 0, "total": 0} == {
        "state": "SUCCESS", "finished": True, "current": 0, "total": 0, "percent": 100.0,
    }  # fmt: skip
    assert (views.progress_of(str(bad.pk))["state"], views.progress_of(str(bad.pk))["percent"]) == ("FAILURE", None)
    assert views.progress_of("nobody")["state"] == "UNKNOWN"


def test_a_bare_id_is_for_those_who_may_see_tasks(running: Any, browser: Browser) -> None:
    url = f"/tasks/progress/{running.pk}/"
    assert Client().get(url).status_code == 403
    assert browser("view_taskresult").get(url).status_code == 403
    assert browser("view_task").get(url).json()["state"] == "PROGRESS"


def test_a_signature_that_was_tampered_with_or_is_old_is_refused(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url = views.progress_url(str(running.pk))
    assert Client().get(url[:-3] + "x/").status_code == 403
    other = signing.dumps(str(running.pk), salt="another")
    assert Client().get(f"/tasks/progress/{other}/").status_code == 403
    monkeypatch.setattr(views, "SIGNED_FOR", -1)
    assert Client().get(url).status_code == 403


def test_the_tag_shows_a_bar_that_works_without_a_script(running: Any) -> None:
    text = "{% load django_tasks %}{% task_progress task %}{% task_progress_script %}"
    shown = Template(text).render(Context({"task": str(running.pk)}))
    (_span, outer), (_progress, bar), _status, (_script, script) = Tags(shown).seen
    assert bar["value"] == "33.3"
    assert Client().get(outer["data-djt-progress"] or "").json()["percent"] == 33.3
    assert script["src"] == "/static/django_tasks/progress.js"
    assert "canary" not in shown


def test_what_a_task_calls_its_state_is_no_markup(running: Any) -> None:
    [row] = saved([waiting(state=states.STARTED, custom_state="<xss>", worker_id=1)])
    shown = Template("{% load django_tasks %}{% task_progress task %}").render(Context({"task": str(row.pk)}))
    assert "<xss>" not in shown
    assert "value=" not in shown
