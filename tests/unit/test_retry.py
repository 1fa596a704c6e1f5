from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks.retry import (
    backoff_delay,
    publish_delays,
    validate_backoff,
    validate_max_retries,
    validate_publish_policy,
    validate_seconds,
)


@pytest.mark.parametrize(
    ("retries", "factor", "maximum", "delay"),
    [(0, 1, 600, 1), (1, 1, 600, 2), (5, 1, 600, 32), (10, 1, 600, 600), (3, 2, 600, 16), (3, 0, 600, 0),
     (1, 0.25, 600, 0.5), (4, 1, 7, 7), (0, 1000, 600, 600), (1_000_000, 1, 600, 600), (1_000_000, 1e-300, 600, 600)],
)  # fmt: skip
def test_the_delay_doubles_up_to_the_maximum(retries: int, factor: float, maximum: float, delay: float) -> None:
    assert backoff_delay(retries, factor=factor, maximum=maximum, jitter=False) == delay


@given(
    retries=st.integers(0, 5000),
    factor=st.floats(0, 1e6),
    maximum=st.floats(0, 1e9),
    seed=st.integers(),
)
def test_jitter_draws_from_nothing_to_the_full_delay(retries: int, factor: float, maximum: float, seed: int) -> None:
    full = backoff_delay(retries, factor=factor, maximum=maximum, jitter=False)
    assert 0 <= full <= maximum
    assert 0 <= backoff_delay(retries, factor=factor, maximum=maximum, random=Random(seed)) <= full
    assert backoff_delay(retries + 1, factor=factor, maximum=maximum, jitter=False) >= full


def test_jitter_uses_the_whole_range() -> None:
    random = Random(1)
    delays = [backoff_delay(3, random=random) for _ in range(1000)]
    assert min(delays) < 0.1
    assert max(delays) > 7.9
    assert 3.5 < sum(delays) / len(delays) < 4.5


def test_a_call_is_stored_again_as_celery_would_publish_it_again() -> None:
    assert list(publish_delays()) == [0, 0.2, 0.2]
    policy = {"max_retries": 5, "interval_start": 1, "interval_step": 2, "interval_max": 6}
    assert list(publish_delays(policy)) == [1, 3, 5, 6, 6]
    assert list(publish_delays({"max_retries": 0})) == []


def test_without_a_limit_a_call_is_stored_again_for_ever() -> None:
    delays = publish_delays({"max_retries": None})
    assert list(itertools.islice(delays, 1000))[-1] == 0.2


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "max_retries": st.integers(0, 50),
            "interval_start": st.floats(0, 100),
            "interval_step": st.floats(0, 100),
            "interval_max": st.floats(0, 100),
        },
    )
)
def test_publish_delays_never_fall_and_never_pass_their_maximum(policy: dict[str, Any]) -> None:
    delays = list(publish_delays(policy))
    assert len(delays) == policy.get("max_retries", 3)
    assert delays == sorted(delays)
    assert all(0 <= delay <= policy.get("interval_max", 0.2) for delay in delays)


@pytest.mark.parametrize(
    ("policy", "error", "text"),
    [
        ({"max_retry": 3}, ValueError, "has no key 'max_retry'. Did you mean 'max_retries'?"),
        ({"x": 3}, ValueError, "Allowed: max_retries, interval_start"),
        ({"max_retries": -1}, ValueError, "max_retries is -1; allowed: None (for ever) or a whole number from 0"),
        ({"max_retries": True}, TypeError, "max_retries is True"),
        ({"interval_start": "1"}, TypeError, "interval_start is '1'; allowed: a number of seconds from 0"),
        ({"interval_max": float("inf")}, ValueError, "interval_max is inf"),
        ({"retry_errors": (1,)}, TypeError, "allowed: None or a tuple of exception classes"),
        ([3], TypeError, "retry policy is [3]; allowed: a dict"),
    ],
)
def test_a_malformed_policy_is_refused_at_once(policy: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        publish_delays(policy)
    assert text in str(caught.value)


def test_a_policy_is_filled_in() -> None:
    assert validate_publish_policy({"retry_errors": OSError}) == {
        "max_retries": 3,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 0.2,
        "retry_errors": (OSError,),
    }


def test_numbers_are_validated() -> None:
    assert validate_max_retries(None) is None
    assert validate_max_retries(0) == 0
    assert validate_seconds(1.5, name="countdown") == 1.5
    assert [validate_backoff(value) for value in (None, False, True, 2, 0.5)] == [0, 0, 1, 2, 0.5]
    with pytest.raises(ValueError, match="retry_backoff is -1"):
        validate_backoff(-1)
    with pytest.raises(TypeError, match="retry_backoff is 'yes'"):
        validate_backoff("yes")
    with pytest.raises(ValueError, match="countdown is nan"):
        validate_seconds(float("nan"), name="countdown")
