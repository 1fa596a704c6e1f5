"""A crontab in words: what people read before they save it."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils.translation import override

from django_tasks.models import IntervalSchedule
from django_tasks.periodic.words import in_words
from django_tasks.schedules import crontab


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Every minute"),
        ({"minute": "*/15"}, "Every 15 minutes"),
        ({"minute": 30, "hour": 2}, "At 02:30"),
        ({"minute": 30, "hour": 2, "day_of_week": "1-5"}, "At 02:30, Monday to Friday"),
        ({"minute": 0, "hour": "8,12,18"}, "At 08:00, 12:00 and 18:00"),
        ({"minute": 0}, "On the hour, every hour"),
        ({"minute": 0, "hour": "*/3"}, "Every 3 hours, on the hour"),
        ({"minute": 0, "hour": "9-17"}, "On the hour, in hours 09 to 17"),
        ({"minute": "5,50"}, "At minutes 5 and 50 past the hour"),
        ({"minute": "*", "hour": 3}, "Every minute of hour 03"),
        ({"minute": "*/20", "hour": "22-2"}, "Every 20 minutes, in hours 00 to 02, 22 and 23"),
        ({"minute": 0, "hour": 0, "day_of_month": "1,15"}, "At 00:00, on days 1 and 15 of the month"),
        ({"minute": 0, "hour": 0, "day_of_month": 1, "month_of_year": "*/3"},
         "At 00:00, on day 1 of the month, in January, April, July and October"),
        ({"minute": 0, "hour": 0, "day_of_month": 13, "day_of_week": "fri"},
         "At 00:00, on day 13 of the month, only if it is Friday"),
        ({"minute": 0, "hour": 0, "day_of_month": "1-7", "day_of_week": "sun,sat"},
         "At 00:00, on days 1 to 7 of the month, only if it is Sunday or Saturday"),
    ],
)  # fmt: skip
def test_a_crontab_is_told_in_words(fields: dict[str, Any], words: str) -> None:
    assert in_words(crontab(**fields)) == words


@pytest.mark.parametrize(
    ("language", "words", "interval"),
    [
        ("de", "Um 02:30, Montag bis Freitag, im März", "alle 10 Stunden"),
        ("fr", "À 02:30, lundi à vendredi, en mars", "toutes les 10 heures"),
        ("es", "A las 02:30, lunes a viernes, en marzo", "cada 10 horas"),
        ("pt-br", "Às 02:30, segunda-feira a sexta-feira, em março", "a cada 10 horas"),
        ("ru", "В 02:30, понедельник–пятница, только март", "раз в 10 часов"),
        ("zh-hans", "02:30，星期一至星期五，仅在三月", "每10小时"),
        ("nl", "At 02:30, Monday to Friday, in March", "every 10 hours"),  # of which there is no catalog
    ],
)
def test_a_schedule_is_told_in_the_language_of_the_reader_or_in_english(
    language: str, words: str, interval: str
) -> None:
    with override(language):
        assert in_words(crontab(30, 2, day_of_week="mon-fri", month_of_year=3)) == words
        assert str(IntervalSchedule(every=10, period="hours")) == interval


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("period", [name for name, _ in IntervalSchedule.PERIOD_CHOICES])
def test_an_interval_is_told_in_words(every: int, period: str) -> None:
    words = f"every {period[:-1]}" if every == 1 else f"every {every} {period}"
    assert str(IntervalSchedule(every=every, period=period)) == words
