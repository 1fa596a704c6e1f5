"""What is wrong is told in the reader's language on pages, and in English wherever people or programs search for it."""

from __future__ import annotations

import json
import re
import time

import pytest
from django.conf import settings
from django.test import Client, override_settings
from django.utils import translation

from django_tasks import doctor, states
from django_tasks.models import Beat, IntervalSchedule, PeriodicTask, Rollup
from tests.admin.pages import list_url, read, text_of
from tests.cockpit.site_rows import a_worker, rollup
from tests.rows import UNKNOWN, ago, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

AS_THE_BROWSER_ASKS = override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"])
#: What is the same in every language.
COMMAND = re.compile(r"manage\.py [-\w ]+")


def break_much(*, nobody_works: bool) -> None:
    """Have a site on which nearly everything is wrong that can be told by rows."""
    gone = a_worker("w1", seen=9_000.0, stopped_at=ago(9_000))
    held = {"state": states.STARTED, "slot": 0, "attempt": 1}
    saved([waiting(worker_id=gone.pk, **held), waiting(worker_id=gone.pk + 1, **held)])
    saved([waiting(queue="mail"), waiting(queue="mail"), waiting(due_at=ago(900))])
    saved([waiting(name=UNKNOWN, state=states.UNROUTABLE), waiting(name=UNKNOWN), waiting(name=UNKNOWN)])
    saved([waiting(body=json.dumps([["x" * 600_000], {}]), due_at=ago(-900))])
    schedule = IntervalSchedule.objects.create(every=1, period="hours")
    for number in range(10):
        PeriodicTask.objects.create(name=f"Report {number}", task=UNKNOWN, interval=schedule)
    PeriodicTask.objects.update(last_error="ValueError: no", next_run_at=ago(120))
    beat = {"name": "beat@h", "hostname": "h", "pid": 1, "version": "1", "started_at": ago(9_000)}
    Beat.objects.create(**beat, seen_at=ago(3_000 if nobody_works else 1))
    Rollup.objects.bulk_create([rollup("mail", "x", moment=int(time.time()), succeeded=1, failed=30)])
    if not nobody_works:
        a_worker("w2", queues="default")


def said(language: str) -> list[doctor.Problem]:
    with translation.override(language):
        return doctor.examine()


@pytest.mark.parametrize("nobody_works", [True, False], ids=["nobody works", "somebody works"])
@pytest.mark.parametrize("language", ["de", "es", "fr", "pt-br", "ru", "zh-hans"])
def test_the_doctor_speaks_other_languages(language: str, nobody_works: bool, root: Client) -> None:
    """Each sentence, and of the same things as in English."""
    break_much(nobody_works=nobody_works)
    kept = {"RESULT_EXPIRES": {"SUCCESS": None}, "TASK_ALWAYS_EAGER": True}
    with override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, **kept}):
        english, other = said("en"), said(language)
    assert len(english) >= 17
    assert [(one.check, one.level, one.about) for one in english] == [(o.check, o.level, o.about) for o in other]
    for one, same in zip(english, other, strict=True):
        assert one.problem != same.problem
        assert (one.cure == same.cure) == bool(COMMAND.fullmatch(one.cure)), one.cure


@AS_THE_BROWSER_ASKS
def test_each_reader_of_the_overview_and_of_health_has_their_own_language(root: Client) -> None:
    """Also when they look in the same second."""
    break_much(nobody_works=False)
    for page in ("overview", "health"):
        for language, sentences in {
            "de": (
                "In der Warteschlange mail warten 2 Aufgaben, und kein Worker, der online ist, verarbeitet sie.",
                "Die periodische Aufgabe Report 0 kann nicht gesendet werden: ValueError",
                "Korrigieren Sie sie im Admin.",
            ),
            "es": ("En la cola mail esperan 2 tareas, y ningún worker en línea la consume.",),
            "fr": ("La file d’attente mail a 2 tâches en attente, et aucun worker en ligne ne la consomme.",),
            "en": ("Queue mail has 2 tasks waiting, and no online worker consumes it.",),
        }.items():
            answer = root.get(list_url(page), headers={"accept-language": language})
            text = text_of(answer.content.decode())
            assert all(sentence in text for sentence in sentences), (page, language)
            assert ("no online worker" in text) == (language == "en")
            assert "manage.py runworker -Q mail" in text
    german = text_of(root.get(list_url("overview"), headers={"accept-language": "de"}).content.decode())
    assert "2 weitere periodische Aufgaben können nicht gesendet werden." in german
    assert "97 % der Aufgaben, die innerhalb von 1h liefen, sind fehlgeschlagen: 30." in german
    assert "1 Aufgabe ist zurückgestellt: Kein laufender Worker hat eine Aufgabe ihres Namens." in german
    german = text_of(root.get(list_url("health"), headers={"accept-language": "de"}).content.decode())
    assert "wurde mit Argumenten von 600.010 Zeichen gesendet" in german


@AS_THE_BROWSER_ASKS
def test_programs_read_english(root: Client) -> None:
    break_much(nobody_works=True)
    german = {"accept-language": "de"}
    assert "Kein Worker ist online: Nichts läuft." in text_of(root.get(list_url("overview"), headers=german).text)
    told = root.get("/admin/django_tasks/overview/overview.json", headers=german).json()
    assert told["problems"][0]["problem"] == "No worker is online: nothing runs."


@override_settings(LANGUAGE_CODE="de", USE_I18N=False)
def test_a_site_without_translations_has_the_numbers_of_english_in_its_english_sentences(
    root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_much(nobody_works=True)
    fresh = type(vars(translation)["_trans"])()  # Django looks at USE_I18N once
    monkeypatch.setattr(translation, "_trans", fresh)
    text = text_of(read(root, list_url("health")))
    assert "600,010 characters of arguments" in text
    assert "3,0" in text[text.index("beat@h was last seen") :][:40]
