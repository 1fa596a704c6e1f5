"""Limits, control and time limits, kept by workers that Redis feeds: what is tested with the database alone, once more.

Only what asks the broker for something of its own is here; the rest is the same code with either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.databases import TestDatabase
from tests.integration import test_control, test_limits, test_time_limits
from tests.integration.redis_site import RedisSite

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
def site(database: TestDatabase, tmp_path: Path) -> Iterator[RedisSite]:
    """Give a site without workers, and a Redis of its own."""
    with closing(RedisSite.open(database, tmp_path)) as site:
        yield site


@pytest.mark.parametrize(
    "check",
    [
        test_limits.test_a_queue_is_paused_and_resumed_under_load,
        test_limits.test_a_pause_ends_by_itself_while_the_worker_is_idle,
        test_limits.test_a_tenant_with_one_task_does_not_wait_behind_one_with_thousands,
        test_control.test_an_idle_worker_answers_at_once,
        test_control.test_query_task_tells_what_each_worker_knows,
        test_control.test_queues_are_consumed_and_left_at_run_time,
        test_control.test_a_running_task_is_terminated_by_its_id,
        test_time_limits.test_neighbours_of_an_overdue_task_go_back_untouched,
        test_time_limits.test_a_retry_after_a_soft_limit_has_the_same_limits,
    ],
    ids=lambda check: check.__name__.removeprefix("test_"),
)
def test_it_is_the_same_on_redis(site: RedisSite, check: Callable[[RedisSite], None]) -> None:
    check(site)
