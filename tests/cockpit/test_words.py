"""Words for moments to come and for workers, in the reader's language."""

from __future__ import annotations

import pytest
from django.utils import translation

from django_tasks.cockpit import words


@pytest.mark.parametrize(
    ("seconds", "english", "german"),
    [
        (0.5, "in less than a minute", "in weniger als einer Minute"),
        (60, "in 1 minute", "in 1 Minute"),
        (3_599, "in 59 minutes", "in 59 Minuten"),
        (3_600, "in 1 hour", "in 1 Stunde"),
        (86_399, "in 23 hours", "in 23 Stunden"),
        (3 * 86_400, "in 3 days", "in 3 Tagen"),
        (1_500 * 86_400, "in 1,500 days", "in 1.500 Tagen"),
    ],
)
def test_a_moment_to_come_is_told_as_one_says_it(seconds: float, english: str, german: str) -> None:
    assert words.ahead(seconds) == english
    with translation.override("de"):
        assert words.ahead(seconds) == german


def test_how_a_worker_is_is_told_in_the_readers_language() -> None:
    statuses = ("online", "draining", "lost", "stopped")
    assert tuple(map(words.status, statuses)) == statuses
    with translation.override("es"):
        assert [words.status(one) for one in statuses] == ["en línea", "terminando", "perdido", "detenido"]
