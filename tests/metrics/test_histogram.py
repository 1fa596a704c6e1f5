"""Durations in buckets: what a percentile may get wrong, and by how much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks.metrics.histogram import BOUNDS, SIZE, bucket, quantile

DURATIONS = st.floats(0, BOUNDS[-1])


@given(seconds=st.floats(0, 1e9))
def test_a_duration_is_in_the_first_bucket_whose_end_it_does_not_exceed(seconds: float) -> None:
    place = bucket(seconds)
    assert place == SIZE - 1 or seconds <= BOUNDS[place]
    assert place == 0 or seconds > BOUNDS[place - 1]


@given(durations=st.lists(DURATIONS, min_size=1, max_size=50), part=st.floats(0.01, 1))
def test_a_percentile_lies_in_the_bucket_of_the_true_one(durations: list[float], part: float) -> None:
    counts = [0] * SIZE
    for seconds in durations:
        counts[bucket(seconds)] += 1
    rank = next(rank for rank in range(1, len(durations) + 1) if rank >= part * len(durations))
    true = bucket(sorted(durations)[rank - 1])
    found = quantile(counts, part)
    assert found is not None
    assert (BOUNDS[true - 1] if true else 0.0) <= found <= BOUNDS[true]


def test_no_durations_have_no_percentile() -> None:
    assert quantile([0] * SIZE, 0.5) is None


def test_what_is_longer_than_every_bucket_is_told_by_its_beginning() -> None:
    counts = [0] * (SIZE - 1) + [1]
    assert quantile(counts, 0.99) == BOUNDS[-1]


def test_a_part_is_between_0_and_1() -> None:
    with pytest.raises(ValueError, match="from 0 to 1, not 95"):
        quantile([1] * SIZE, 95)
