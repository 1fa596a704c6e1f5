"""How many tasks are claimed at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks.worker.batch import AFTER_IDLE, BUDGET, MOST, Batch


def test_the_first_claim_is_careful() -> None:
    assert Batch().size() == AFTER_IDLE


def test_short_tasks_come_by_the_hundred_and_long_ones_alone() -> None:
    batch = Batch()
    for _ in range(20):
        batch.ran(batch.size(), batch.size() * 0.00001)
    assert batch.size() == MOST
    batch.ran(1, 10.0)
    assert batch.size() == 1


def test_one_slow_batch_is_enough_to_claim_less_and_one_fast_one_is_not_enough_to_claim_far_more() -> None:
    batch = Batch()
    batch.ran(1, 0.05)
    assert batch.size() == 1
    batch.ran(1, 0.0001)
    assert batch.size() <= 2


def test_after_a_pause_it_begins_carefully_again() -> None:
    batch = Batch()
    for _ in range(20):
        batch.ran(100, 0.001)
    batch.idle()
    assert batch.size() == AFTER_IDLE
    batch.ran(1, 1.0)
    batch.idle()
    assert batch.size() == 1, "what is known to be slow stays slow"


@pytest.mark.parametrize("most", [1, 3])
def test_the_prefetch_multiplier_caps_every_claim(most: int) -> None:
    batch = Batch(most)
    assert batch.size() == most
    for _ in range(20):
        batch.ran(most, 0.0)
    assert batch.size() == most


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 1e6)), max_size=30))
def test_whatever_ran_the_next_claim_is_one_to_five_hundred_and_fits_the_budget(runs: list[tuple[int, float]]) -> None:
    batch = Batch()
    for tasks, seconds in runs:
        batch.ran(tasks, seconds)
    assert 1 <= batch.size() <= MOST
    if runs and runs[-1][0] > 0:
        each = runs[-1][1] / runs[-1][0]
        assert batch.size() == 1 or batch.size() * each <= BUDGET * 1.001
