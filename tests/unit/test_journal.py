"""What is kept of a task's log: how much, from which level on, and of whom."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import override_settings

from django_tasks.context import current_request
from django_tasks.journal import RECORD_LIMIT, Journal, JournalHandler, Journals, Part
from django_tasks.redaction import HIDDEN, Secrets
from django_tasks.request import Context

logger = logging.getLogger("tests.journal")


@pytest.fixture
def said() -> Iterator[Any]:
    """Give ``said(journal, level, text)``: log it as the task of that journal."""
    handler = JournalHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)

    def say(journal: Journal, *record: Any, **named: Any) -> None:
        token = current_request.set(Context(_journal=journal))
        try:
            # A task that is called as a function within the task.
            current_request.set(Context(_outer=current_request.get()))
            logger.log(*record, **named)
        finally:
            current_request.reset(token)

    yield say
    logger.removeHandler(handler)


def texts(journal: Journal) -> list[str]:
    return [line.text for line in journal.take()]


def test_what_a_task_says_is_kept_from_a_level_on(said: Any) -> None:
    journal = Journal("id", 1, logging.INFO, Secrets(["hunter2"]))
    said(journal, logging.DEBUG, "too quiet")
    said(journal, logging.INFO, "hello %s", "hunter2")
    journal.add(logger.makeRecord(logger.name, logging.ERROR, "", 0, "%d is no number", ("x",), None))
    try:
        raise ValueError("hunter2 \x00 \udc80")
    except ValueError:
        said(journal, logging.ERROR, "broken", exc_info=True)
    logger.error("of no task")
    first, second, third = journal.take()
    assert (first.level, first.logger, first.text) == (20, "tests.journal", f"hello {HIDDEN}")
    assert second.text == "'%d is no number' % TypeError"
    assert third.text.startswith("broken\nTraceback")
    assert third.text.endswith(f"ValueError: {HIDDEN} \\x00 \\udc80")
    assert journal.take() == [], "nothing is taken twice"


@override_settings(DJANGO_TASKS={"TASK_LOG_LIMIT": 1_024})
def test_of_too_much_the_first_and_the_last_stay(said: Any) -> None:
    journal = Journal("id", 1, logging.INFO, None)
    for number in range(100):
        said(journal, logging.INFO, f"{number:02} " + 97 * "x")
    assert [text[:2] for text in texts(journal)] == ["00", "01", "02", "03", "04"]
    journal.close()
    left, *last = journal.take()
    assert (left.level, left.text) == (0, "90")
    assert [line.text[:2] for line in last] == ["95", "96", "97", "98", "99"]
    said(journal, logging.INFO, "too late")
    assert texts(journal) == []


def test_one_record_is_cut(said: Any) -> None:
    journal = Journal("id", 1, logging.INFO, None)
    said(journal, logging.INFO, 10_000 * "x")
    [text] = texts(journal)
    assert (len(text), text[-1]) == (RECORD_LIMIT, "…")


@override_settings(DJANGO_TASKS={"TASK_LOG_LEVEL": "WARNING"})
def test_attempts_are_stored_when_they_end_and_from_time_to_time_before(said: Any) -> None:
    journals = Journals()
    task = SimpleNamespace(log_level=None, sensitive=())
    runs, ended, ignored, silent = (journals.begin(task, key, 2, [], {}) for key in ("runs", "ended", "ignored", "x"))
    assert runs is not None and ended is not None and ignored is not None and silent is not None  # noqa: PT018
    for each in (runs, ended, ignored):
        said(each, logging.ERROR, "once")
    journals.end(ended, kept=True)
    journals.end(ignored, kept=False)
    journals.end(silent, kept=True)
    taken = journals.take()
    assert {part.task_id for part in taken.parts} == {"runs", "ended"}
    assert taken.gone == ["ignored"], "an earlier attempt may have left something"
    said(runs, logging.ERROR, "twice")
    assert journals.take().parts == [], "only every few seconds"
    journals.put_back(taken)
    journals.end(runs, kept=True)
    assert [part.task_id for part in journals.take().parts] == [*(part.task_id for part in taken.parts), "runs"]
    assert journals.begin(SimpleNamespace(log_level=False, sensitive=()), "none", 1, [], {}) is None


def test_a_part_is_stored_as_json() -> None:
    journal = Journal("id", 1, logging.INFO, None)
    record = logger.makeRecord("shop", 20, "", 0, "grüße", (), None)
    journal.add(record)
    assert json.loads(Part("id", 1, journal.take()).text) == [[round(record.created, 3), 20, "shop", "grüße"]]
