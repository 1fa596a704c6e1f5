"""How many children there are to be."""

from __future__ import annotations

import pytest

from django_tasks.worker.autoscale import STEP_EVERY, Autoscale


@pytest.mark.parametrize(("most", "least"), [(0, 0), (3, 4), (2, 0), (-1, -2)])
def test_bounds_that_hold_nothing_are_refused(most: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"autoscale {most},{least}: allowed are max,min with 1 <= min <= max"):
        Autoscale(most, least, 30)


def test_it_grows_one_by_one_while_all_are_busy_and_something_is_due() -> None:
    scale, now, present = Autoscale(4, 1, 30), 1000.0, 1
    seen = []
    for _ in range(6):
        present = scale.wanted(present, pressed=True, idle=False, now=now)
        assert scale.wanted(present, pressed=True, idle=False, now=now + STEP_EVERY / 2) == present
        seen.append(present)
        now += STEP_EVERY
    assert seen == [2, 3, 4, 4, 4, 4]


def test_it_shrinks_when_one_was_idle_all_the_time() -> None:
    scale = Autoscale(4, 2, 10)
    assert scale.wanted(4, pressed=False, idle=True, now=1000.0) == 4
    assert scale.wanted(4, pressed=False, idle=True, now=1009.0) == 4
    assert scale.wanted(4, pressed=False, idle=False, now=1009.5) == 4, "busy for a moment"
    assert scale.wanted(4, pressed=False, idle=True, now=1010.0) == 4
    assert scale.wanted(4, pressed=False, idle=True, now=1020.0) == 3
    assert scale.wanted(3, pressed=False, idle=True, now=1021.0) == 2
    assert scale.wanted(2, pressed=False, idle=True, now=1100.0) == 2


def test_who_resizes_by_hand_moves_the_bounds_along() -> None:
    assert (Autoscale(4, 2, 10).including(6).maximum, Autoscale(4, 2, 10).including(1).minimum) == (6, 1)
