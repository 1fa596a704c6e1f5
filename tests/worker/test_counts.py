"""What a child counts, as its supervisor reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks import states
from django_tasks.metrics.histogram import bucket
from django_tasks.metrics.rows import NUMBERS, RUNS, WAITS
from django_tasks.worker.accounts import Accounts
from django_tasks.worker.counts import CAPACITY, REST, Counts, Key


def add(counts: Counts, key: Key, state: str = states.SUCCESS, wait: float = 0.5, run: float | None = 0.25) -> None:
    counts.add(key, state, due=1000.0, ended=1000.0 + wait + (run or 0.0), seconds=run or 0.0, runtime=run)


def number(numbers: Sequence[float], name: str) -> float:
    return numbers[NUMBERS.index(name)]


def test_an_attempt_counts_by_its_end_its_wait_and_its_run() -> None:
    counts = Counts()
    add(counts, ("mail", "send"))
    add(counts, ("mail", "send"), states.FAILURE)
    numbers = counts.read()["mail", "send"]
    assert [number(numbers, name) for name in ("succeeded", "failed", "retried", "other")] == [1, 1, 0, 0]
    assert number(numbers, WAITS[bucket(0.5)]) == number(numbers, RUNS[bucket(0.25)]) == 2
    assert number(numbers, "wait_seconds") == 1.0
    assert number(numbers, "run_seconds") == 0.5
    assert sum(numbers[:-2]) == 6


def test_what_was_given_back_unrun_does_not_count() -> None:
    counts = Counts()
    add(counts, ("mail", "send"), states.PENDING)
    add(counts, ("mail", "send"), states.UNROUTABLE)
    assert not any(any(numbers) for numbers in counts.read().values())


def test_what_never_ran_has_no_durations() -> None:
    counts = Counts()
    add(counts, ("mail", "send"), states.REVOKED, run=None)
    numbers = counts.read()["mail", "send"]
    assert number(numbers, "other") == sum(numbers) == 1


def test_the_other_clock_is_taken_into_account_and_no_wait_is_negative() -> None:
    counts = Counts()
    counts.tell_skew(2.0)
    add(counts, ("a", "ahead"), wait=0.5)
    counts.tell_skew(-60.0)
    add(counts, ("a", "behind"), wait=0.5)
    assert number(counts.read()["a", "ahead"], "wait_seconds") == 2.5
    assert number(counts.read()["a", "behind"], "wait_seconds") == 0.0


def test_the_parent_reads_what_a_child_process_counted() -> None:
    counts = Counts()
    pid = os.fork()
    if pid == 0:
        for index in range(1000):
            add(counts, ("mail", f"näme{index % 3}"))
        os._exit(0)
    os.waitpid(pid, 0)
    read = counts.read()
    assert {key: number(numbers, "succeeded") for key, numbers in read.items() if key != REST} == {
        ("mail", "näme0"): 334, ("mail", "näme1"): 333, ("mail", "näme2"): 333,
    }  # fmt: skip


def test_what_does_not_fit_is_counted_without_its_name() -> None:
    counts = Counts()
    for index in range(CAPACITY + 10):
        add(counts, ("q", f"task{index}"))
    add(counts, ("q", "task0"))
    read = counts.read()
    assert len(read) == CAPACITY + 1
    assert number(read[REST], "succeeded") == 10
    assert number(read["q", "task0"], "succeeded") == 2


@given(
    steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.booleans(), st.booleans()), max_size=40),
)
def test_nothing_is_lost_or_counted_twice_however_often_it_is_read(steps: list[tuple[int, str, bool, bool]]) -> None:
    """Children end and are replaced in their slots; writing down fails and is repeated."""
    accounts, children = Accounts(), [Counts() for _ in range(3)]
    written: list[Mapping[Key, Sequence[float]]] = []
    expected: dict[Key, int] = {}
    for slot, name, ends, fails in steps:
        key = ("q", name)
        add(children[slot], key)
        expected[key] = expected.get(key, 0) + 1
        if ends:
            accounts.read(slot, children[slot])
            accounts.forget(slot)
            children[slot] = Counts()
        taken = accounts.take()
        if fails:
            accounts.put_back(taken)
        else:
            written.append(taken)
    for slot, child in enumerate(children):
        accounts.read(slot, child)
    written.append(accounts.take())
    found = {key: sum(number(some[key], "succeeded") for some in written if key in some) for key in expected}
    assert found == expected
    assert dict(accounts.totals) == {name: count for (_, name), count in expected.items()}


def test_counting_one_attempt_is_cheap() -> None:
    """A hundredth of what a task may cost at all; the bound leaves room for a busy machine."""
    import timeit

    counts = Counts()
    key = ("default", "shop.tasks.mail")
    each = min(timeit.repeat(lambda: add(counts, key), number=2000, repeat=5)) / 2000
    assert each < 20e-6, f"{each * 1e6:.1f} µs"


@pytest.mark.parametrize("state", [states.FAILURE, states.REVOKED])
def test_what_was_ended_from_outside_counts_by_its_state(state: str) -> None:
    accounts = Accounts()
    accounts.ended(("q", "a"), state)
    numbers = accounts.take()["q", "a"]
    assert number(numbers, "failed" if state == states.FAILURE else "other") == sum(numbers) == 1
