"""What is done to tasks that take longer than they may, by real processes."""

from __future__ import annotations

from typing import Any

import psutil
import pytest

from django_tasks import AsyncResult, states
from django_tasks.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from django_tasks.models import TaskResult
from tests.eventually import eventually
from tests.integration.jobs import work
from tests.integration.long_jobs import (
    WAYS,
    asleep,
    count_for,
    overrun,
    overrun_and_tell,
    retry_when_late,
    start_families,
    take,
    tell_alarm,
    tell_limits,
    tidy_up,
    tidy_up_async,
)
from tests.integration.site import Site
from tests.servers import is_alive

pytestmark = pytest.mark.databases("sqlite")

IMPORTS = ["tests.integration.jobs", "tests.integration.long_jobs"]
#: Seconds by which a hard limit may be late.
LATE = 2.0


def failed_of(result: AsyncResult[Any], error: type[Exception]) -> TaskResult:
    """Return the ledger's line of a task that failed of this."""
    row = TaskResult.objects.get(pk=result.id)
    assert row.state == states.FAILURE
    assert isinstance(result.result, error)
    return row


@pytest.mark.databases("sqlite", "postgresql")
@pytest.mark.parametrize("way", WAYS)
def test_a_hard_limit_ends_whatever_the_code_does_and_frees_the_slot(site: Site, way: str) -> None:
    """R13: FAILURE TimeLimitExceeded within the limit and two seconds; the next task runs at once."""
    worker = site.start(concurrency=1, IMPORTS=IMPORTS)
    slow = overrun.delay(way)
    start = site.wait_for_start(slow)
    good = work.delay()
    follows = site.wait_for_start(good)
    assert follows.at - start.at < 1 + LATE
    assert good.get(timeout=60) == 1
    row = failed_of(slow, TimeLimitExceeded)
    assert row.exception == "TimeLimitExceeded: The time limit of 1 s has passed"
    assert row.attempt == 1
    assert row.runtime is not None
    assert 1 <= row.runtime < 1 + LATE
    assert not site.journal("end", task_id=slow.id)
    assert f"Task {slow.id} is ended: its time limit of 1 s has passed" in worker.said()


@pytest.mark.databases("sqlite", "redis")
def test_neighbours_of_an_overdue_task_go_back_untouched(site: Site) -> None:
    """R13: what was claimed with it runs once, with no loss and no history."""
    slow = take.apply_async(("sleep_in_c",), priority=1, time_limit=1)
    sent = work.enqueue_many([()] * 5)
    site.start(concurrency=1, IMPORTS=IMPORTS)
    account = site.account([slow, *sent])
    assert account.fates[slow.id] == states.FAILURE
    assert [account.fates[result.id] for result in sent] == [states.SUCCESS] * 5
    assert account.reruns == 0
    assert set(TaskResult.objects.filter(state=states.SUCCESS).values_list("history", flat=True)) == {None}


def test_what_an_overdue_task_started_ends_with_it(site: Site) -> None:
    """R13, R18: also a process in a session of its own."""
    worker = site.start(concurrency=1, IMPORTS=IMPORTS)
    slow = start_families.delay(str(site.gates))
    file = site.gates / "family"
    eventually(lambda: file.exists() and len(file.read_text().split()) == 2, timeout=60)
    family = [psutil.Process(int(pid)) for pid in file.read_text().split()]
    site.wait_for(slow.ready)
    failed_of(slow, TimeLimitExceeded)
    eventually(lambda: not any(is_alive(member) for member in family), message="a task's processes outlive it")
    assert worker.process.poll() is None


def test_the_child_that_takes_its_place_tells_the_handlers(site: Site) -> None:
    """``on_failure`` of a task that was ended from outside runs once, in another process, after the end is stored."""
    site.start(concurrency=1, IMPORTS=IMPORTS)
    slow = overrun_and_tell.delay()
    [told] = site.wait_for_entries(1, "on_failure:TimeLimitExceeded")
    assert told.task_id == slow.id
    failed_of(slow, TimeLimitExceeded)
    assert work.delay().get(timeout=60) == 1
    assert len(site.journal("on_failure:TimeLimitExceeded")) == 1


@pytest.mark.parametrize("pool", [["-c", "1"], ["--pool", "solo"]], ids=["prefork", "solo"])
def test_a_soft_limit_is_raised_in_the_task(site: Site, pool: list[str]) -> None:
    """It may tidy up and succeed, or fail of it; the alarm clock is nobody's afterwards."""
    site.launch(*pool, IMPORTS=IMPORTS)
    assert tidy_up.apply_async(soft_time_limit=0.3).get(timeout=60) == "tidied up SoftTimeLimitExceeded"
    sleeping, reading, counting = (
        take.apply_async(("sleep",), soft_time_limit=0.3),
        take.apply_async(("wait_on_a_socket",), soft_time_limit=0.3),
        count_for.apply_async((30,), soft_time_limit=0.3),
    )
    for result in (sleeping, reading, counting):
        site.wait_for(result.ready)
        row = failed_of(result, SoftTimeLimitExceeded)
        assert row.exception == "SoftTimeLimitExceeded: The soft time limit of 0.3 s has passed"
        assert row.traceback is not None
        assert "long_jobs.py" in row.traceback
        assert "interrupts.py" not in row.traceback
    assert tell_alarm.apply_async(soft_time_limit=None).get(timeout=60) == [0, True]


@pytest.mark.parametrize("pool", [["-c", "1"], ["--pool", "solo"]], ids=["prefork", "solo"])
def test_a_soft_limit_is_raised_at_the_await_of_a_coroutine(site: Site, pool: list[str]) -> None:
    site.launch(*pool, IMPORTS=IMPORTS)
    assert tidy_up_async.apply_async(soft_time_limit=0.3).get(timeout=60) == "tidied up SoftTimeLimitExceeded"
    slow = asleep.apply_async(soft_time_limit=0.3)
    site.wait_for(slow.ready)
    failed_of(slow, SoftTimeLimitExceeded)
    assert asleep.delay(0.01).get(timeout=60) == [None, None]


def test_the_call_wins_over_the_task_and_the_task_over_the_worker(site: Site) -> None:
    """``request.timelimit`` is (hard, soft), as in Celery."""
    site.start("--time-limit", "50", "--soft-time-limit", "40", concurrency=1, IMPORTS=IMPORTS, TASK_TIME_LIMIT=99)
    assert tell_limits.delay().get(timeout=60) == [50, 40]
    assert tell_limits.apply_async(time_limit=60, soft_time_limit=0.5).get(timeout=60) == [60, 0.5]
    assert tell_limits.apply_async(soft_time_limit=9).get(timeout=60) == [50, 9]


def test_the_settings_count_where_nothing_else_says(site: Site) -> None:
    worker = site.start(concurrency=1, IMPORTS=IMPORTS, TASK_TIME_LIMIT=20, TASK_SOFT_TIME_LIMIT=0.5)
    assert tell_limits.delay().get(timeout=60) == [20, 0.5]
    slow = take.delay("sleep")
    site.wait_for(slow.ready)
    failed_of(slow, SoftTimeLimitExceeded)
    worker.stop()
    site.start(concurrency=1, IMPORTS=IMPORTS, TASK_TIME_LIMIT=1)
    slow = take.delay("sleep")
    site.wait_for(slow.ready)
    failed_of(slow, TimeLimitExceeded)


@pytest.mark.databases("sqlite", "redis")
def test_a_retry_after_a_soft_limit_has_the_same_limits(site: Site) -> None:
    site.start(concurrency=1, IMPORTS=IMPORTS)
    result = retry_when_late.apply_async(soft_time_limit=0.2, time_limit=30)
    assert result.get(timeout=60) == [[30, 0.2], 1]


def test_one_process_alone_cannot_keep_a_hard_limit_and_says_so(site: Site) -> None:
    """The option is refused, a task that declares one is named."""
    worker = site.launch("--pool", "solo", "--time-limit", "5")
    assert worker.wait() == 1
    assert "--time-limit 5: --pool solo has no other process that could end its task" in worker.said()
    worker = site.start("--pool", "solo", IMPORTS=IMPORTS)
    assert "time_limit of tests.integration.long_jobs.overrun" in worker.said()
