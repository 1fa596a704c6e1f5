"""Database connections of tasks: what breaks in one is not the next one's trouble, whatever the settings say."""

from __future__ import annotations

import pytest

from django_tasks import states
from tests.integration.jobs import count_workers, cut_every_connection, work
from tests.integration.pool_jobs import count_results, where
from tests.integration.site import Site

pytestmark = pytest.mark.databases("postgresql")

MODULES = ["tests.integration.jobs", "tests.integration.pool_jobs"]
OTHER_POOLS = ["prefork=2", "asyncio=4", "solo"]
SETTINGS = {
    "as they come": "",
    "kept for ever": "DATABASES['default']['CONN_MAX_AGE'] = None",
    "kept and checked": "DATABASES['default'].update(CONN_MAX_AGE=60, CONN_HEALTH_CHECKS=True)",
    "requests in transactions": "DATABASES['default']['ATOMIC_REQUESTS'] = True",
    "pooled": "DATABASES['default'].setdefault('OPTIONS', {})['pool'] = {'min_size': 1, 'max_size': 2, 'timeout': 10}",
}


def start(site: Site, pool: str, settings: str) -> None:
    if "pool" in settings:
        pytest.importorskip("psycopg_pool")
    module = site.directory / "own_connections.py"
    module.write_text(f"from tests.settings import *\n{settings}\n")
    worker = site.launch("--pool", pool, IMPORTS=MODULES, environ={"DJANGO_SETTINGS_MODULE": "own_connections"})
    worker.wait_until_it_says("is ready.")


@pytest.mark.parametrize(
    ("pool", "settings"),
    [*(("threads=4", settings) for settings in SETTINGS), *((pool, "kept for ever") for pool in OTHER_POOLS)],
)
def test_the_result_of_a_task_that_lost_all_connections_is_stored_and_the_next_one_is_fine(
    site: Site, pool: str, settings: str
) -> None:
    """The server ends every connection while it runs, its own and the worker's."""
    start(site, pool, SETTINGS[settings])
    assert count_workers.delay().get(timeout=60) == 1
    for _ in range(2):
        cut = cut_every_connection.delay()
        site.wait_for(lambda cut=cut: cut.state == states.SUCCESS)  # type: ignore[misc]
        follow = [*count_workers.enqueue_many([()] * 8), *work.enqueue_many([()] * 8)]
        site.wait_for(lambda follow=follow: all(one.ready() for one in follow))  # type: ignore[misc]
        assert {one.state for one in follow} == {states.SUCCESS}


@pytest.mark.parametrize("pool", ["threads=12", "asyncio=50"])
def test_many_tasks_share_the_few_connections_of_a_pool(site: Site, pool: str) -> None:
    """Each gives its connection back when it ends, so that nobody waits in vain."""
    start(site, pool, SETTINGS["pooled"])
    sent = [*where.enqueue_many([()] * 60), *count_results.enqueue_many([()] * 60)]
    site.wait_for(lambda: all(result.ready() for result in sent))
    assert {result.state for result in sent} == {states.SUCCESS}


@pytest.mark.parametrize("pool", ["threads=4", "asyncio=50"])
def test_a_process_holds_no_more_connections_than_it_has_threads(site: Site, pool: str) -> None:
    start(site, pool, "")
    sent = [*where.enqueue_many([(0.05,)] * 40), *count_results.enqueue_many([()] * 100)]
    site.wait_for(lambda: all(result.ready() for result in sent))
    assert {result.state for result in sent} == {states.SUCCESS}
    with site.database.connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        # Threads for functions, the ORM and handlers; the engine's, the steward's, the waker's, and this one.
        assert cursor.fetchone()[0] <= 16 + 8 + 8 + 5
