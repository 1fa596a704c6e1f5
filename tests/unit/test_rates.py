from __future__ import annotations

from bisect import bisect_left
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_tasks import rates
from django_tasks.rates import Spacing


@pytest.mark.parametrize(
    ("given", "per_second"),
    [
        ("10/s", 10.0),
        ("100/m", 100 / 60),
        ("5/h", 5 / 3600),
        ("0.5/s", 0.5),
        ("7", 7.0),
        (10, 10.0),
        (10.5, 10.5),
        (None, None),
        ("", None),
        ("0", None),  # no limit, as in Celery
        (0, None),
        ("0/m", None),
    ],
)
def test_celerys_spellings_of_a_rate_are_understood(given: Any, per_second: float | None) -> None:
    assert rates.parse(given) == (pytest.approx(per_second) if per_second else None)


@pytest.mark.parametrize("given", ["10/d", "ten/s", "-1/s", "/s", "1/s/s", -1, float("nan"), float("inf"), "inf"])
def test_what_is_no_rate_is_refused_with_what_is_allowed(given: Any) -> None:
    with pytest.raises(ValueError, match=r"rate_limit is .*; allowed: a number per second, or a text such as '10/s'"):
        rates.parse(given)


@pytest.mark.parametrize("given", [True, [], object()])
def test_what_is_neither_number_nor_text_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match=r"rate_limit is .*; allowed"):
        rates.parse(given)


@pytest.mark.parametrize(
    ("given", "error"),
    [(0, ValueError), (-1, ValueError), (2_000_000, ValueError), (True, TypeError), ("2", TypeError)],
)
def test_a_concurrency_that_nothing_could_keep_is_refused(given: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"concurrency is .*; allowed: None .no limit. or a whole number from 1"):
        rates.validate_concurrency(given)


def starts(spacing: Spacing, looks: list[float]) -> list[float]:
    """Return when something starts, if at each of these moments as much is let through as may be."""
    found, following = [], 0.0
    for now in looks:
        room = spacing.room(following, now)
        if room:
            following = spacing.after(following, now, room)
            found += [now] * room
    return found


def busiest(times: list[float], window: float) -> int:
    """Return how many lie in the fullest window that begins at one of them, its end not included."""
    return max((bisect_left(times, one + window) - bisect_left(times, one) for one in times), default=0)


@settings(deadline=None)
@given(
    per_second=st.floats(0.001, 20.0),
    gaps=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=300),
)
def test_no_period_sees_more_than_the_rate_and_one(per_second: float, gaps: list[float]) -> None:
    """Wherever it begins, however irregularly the gatekeepers look."""
    spacing = Spacing.of(per_second)
    assert spacing.is_watched
    looks = [1_000_000.0]
    for gap in gaps:
        looks.append(looks[-1] + gap * spacing.seconds)
    for period in (1.0, 60.0):
        # A sum of many floats is off by a little.
        assert busiest(starts(spacing, looks), period * (1 - 1e-6)) <= int(period * per_second + 1e-6) + 1


@settings(deadline=None)
@given(per_second=st.floats(21.0, 2_000.0), gaps=st.lists(st.floats(0.0, 0.2), min_size=1, max_size=300))
def test_a_high_rate_exceeds_itself_by_one_burst_at_most(per_second: float, gaps: list[float]) -> None:
    spacing = Spacing.of(per_second)
    looks = [1_000_000.0]
    for gap in gaps:
        looks.append(looks[-1] + gap)
    assert busiest(starts(spacing, looks), 1.0 - 1e-6) <= per_second + spacing.burst + 1


def test_twenty_a_minute_is_one_every_three_seconds() -> None:
    spacing = Spacing.of(20 / 60)
    assert spacing.seconds == pytest.approx(3.0)
    assert spacing.is_watched
    looks = [1_000.0 + number / 100 for number in range(12_001)]
    found = starts(spacing, looks)
    assert 40 <= len(found) <= 41
    assert busiest(found, 60.0) <= 21


def test_a_look_that_comes_late_makes_up_for_nothing() -> None:
    spacing = Spacing.of(1.0)
    assert starts(spacing, [10.0, 10.5, 500.0, 500.5, 501.0]) == [10.0, 500.0, 501.0]


def test_the_wait_is_told() -> None:
    spacing = Spacing.of(0.5)
    following = spacing.after(0.0, 10.0, 1)
    assert (spacing.wait(following, 10.5), spacing.room(following, 12.0)) == (1.5, 1)
