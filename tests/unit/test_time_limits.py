from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import Any

import pytest

from django_tasks.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from django_tasks.interrupts import softly, softly_awaited
from django_tasks.time_limits import TimeLimits, validate_limits


@pytest.mark.parametrize(
    ("hard", "soft", "error", "text"),
    [
        (0, None, ValueError, r"time_limit is 0; allowed: None \(no limit\) or a number of seconds above 0"),
        (-1.5, None, ValueError, "time_limit is -1.5"),
        (float("inf"), None, ValueError, "time_limit is inf"),
        (float("nan"), None, ValueError, "time_limit is nan"),
        (True, None, TypeError, "time_limit is True"),
        (None, "5", TypeError, "soft_time_limit is '5'"),
        (5, 5.1, ValueError, "soft_time_limit is 5.1; allowed: at most time_limit, here 5"),
    ],
)
def test_a_bad_limit_is_told_with_what_is_allowed(hard: Any, soft: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        validate_limits(hard, soft)


def test_limits_that_say_nothing_leave_it_to_others() -> None:
    assert validate_limits(5, 5) == TimeLimits(5, 5)
    assert TimeLimits(None, 3).over(TimeLimits(10, 8)) == TimeLimits(10, 3)


def test_the_errors_name_the_limit() -> None:
    assert str(SoftTimeLimitExceeded(2.0)) == "The soft time limit of 2 s has passed"
    assert str(TimeLimitExceeded(0.5)) == "The time limit of 0.5 s has passed"
    assert str(SoftTimeLimitExceeded()) == "The soft time limit has passed"


def count(seconds: float) -> None:
    """Run Python all the while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def in_a_thread(work: Any) -> BaseException | None:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return caught[0] if caught else None


def interrupted() -> None:
    with softly(0.02):
        count(20)


def test_the_main_thread_is_interrupted_by_an_alarm_and_its_clock_put_back() -> None:
    def handler(number: int, frame: Any) -> None:
        raise AssertionError("not for the task")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 500)
        with pytest.raises(SoftTimeLimitExceeded, match=r"0\.02 s"):
            interrupted()
        assert signal.getsignal(signal.SIGALRM) is handler
        assert 400 < signal.getitimer(signal.ITIMER_REAL)[0] <= 500
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_another_thread_is_interrupted_at_its_next_instruction() -> None:
    error = in_a_thread(interrupted)
    assert isinstance(error, SoftTimeLimitExceeded)
    assert error.args == (0.02,)


@pytest.mark.parametrize("run", [lambda work: work(), in_a_thread], ids=["main thread", "another"])
def test_nothing_is_raised_after_the_block_however_close_its_end_is_to_the_limit(run: Any) -> None:
    """What ends in the moment of its limit is interrupted, or it is not; what follows never is."""

    def close_calls() -> None:
        for turn in range(300):
            limit = 0.0005 + turn % 7 * 0.0001
            try:
                with softly(limit):
                    count(0.0008)
            except SoftTimeLimitExceeded:
                pass
            count(0.0003)

    assert run(close_calls) is None


async def napping(log: list[str]) -> str:
    try:
        await asyncio.sleep(20)
    except SoftTimeLimitExceeded:
        log.append("soft")
        await asyncio.sleep(0)
        return "tidied up"
    return "slept"


def test_a_coroutine_is_interrupted_where_it_waits_and_may_go_on() -> None:
    log: list[str] = []
    assert asyncio.run(softly_awaited(napping(log), 0.02)) == "tidied up"
    assert log == ["soft"]


def test_an_interruption_reaches_through_groups_and_is_no_cancellation_afterwards() -> None:
    async def grouped() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(20))
            await asyncio.sleep(20)

    async def main() -> int:
        with pytest.raises(ExceptionGroup) as raised:
            await softly_awaited(grouped(), 0.02)
        assert isinstance(raised.value.exceptions[0], SoftTimeLimitExceeded)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(main()) == 0


def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def main() -> None:
        task = asyncio.ensure_future(softly_awaited(napping([]), 20))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
