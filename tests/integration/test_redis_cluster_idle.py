"""What a worker without work asks of a cluster, and what wakes it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from django_tasks import control, states
from django_tasks.exceptions import OperationalError, TaskRevokedError
from tests import redis_servers
from tests.conftest import a_cluster
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.integration.jobs import wait_at_gate, work
from tests.integration.redis_site import RedisSite
from tests.integration.site import PATIENCE
from tests.integration.test_redis_idle import BEATS, FAST_BEATS, SOON

pytestmark = [pytest.mark.databases("sqlite"), pytest.mark.timeout(240)]

#: Connections that wait: for commands and new queues, and for each queue.
ALL = 2


@pytest.fixture
def cluster() -> Iterator[redis_servers.Cluster]:
    """Give a cluster of three servers."""
    with a_cluster() as cluster:
        yield cluster


@pytest.fixture
def site(database: TestDatabase, tmp_path: Path, cluster: redis_servers.Cluster) -> Iterator[RedisSite]:
    """Give a site without workers, and a cluster of its own."""
    with closing(RedisSite(database, tmp_path, url=cluster.url)) as site:
        yield site


def runs_without_a_look(cluster: redis_servers.Cluster) -> bool:
    """Send to a worker that waits; does it take the task without having looked whether there is one?"""
    eventually(lambda: cluster.waiting() == ALL, timeout=PATIENCE)
    queue = cluster.holder("djt:{default}").port
    with redis_servers.Monitor(cluster.nodes) as monitor:
        assert work.delay().get(timeout=PATIENCE) == 1
        eventually(lambda: monitor.count("step") > 0)
    words = [words[0] for words in monitor.heard[queue]]
    return "survey" not in words[words.index("publish") : words.index("step")]


def test_an_idle_worker_of_a_cluster_sends_little_but_its_heartbeat(
    site: RedisSite, cluster: redis_servers.Cluster
) -> None:
    site.start(**FAST_BEATS)
    later = work.enqueue_many([()] * 50, countdown=600)
    assert work.delay().get(timeout=PATIENCE) == 1
    eventually(lambda: cluster.waiting() == ALL, timeout=PATIENCE)
    found: Counter[str] = Counter()
    with redis_servers.Monitor(cluster.nodes) as monitor:
        eventually(lambda: monitor.count("beat") > 1, timeout=PATIENCE)  # until it has come to rest
        before = {port: len(heard) for port, heard in monitor.heard.items()}
        beats = monitor.count("beat")
        eventually(lambda: monitor.count("beat") >= beats + BEATS, timeout=PATIENCE)
        for port, heard in monitor.heard.items():
            found.update(words[0] for words in heard[before[port] :])
    assert found.total() - found["beat"] <= BEATS, found
    assert not any(result.ready() for result in later)


def test_an_idle_worker_of_a_cluster_is_told_of_its_next_task(site: RedisSite, cluster: redis_servers.Cluster) -> None:
    """R9; by any node, also when the slot of its queue is on another one than it was, and after one was away."""
    worker = site.start()
    processes = worker.tree()
    assert work.delay().get(timeout=PATIENCE) == 1
    # Now and then a look that is due anyway comes in between.
    assert any(runs_without_a_look(cluster) for _ in range(3))
    cluster.move("djt:{default}")
    assert any(runs_without_a_look(cluster) for _ in range(3))
    cluster.move("djt:{~}")
    assert any(runs_without_a_look(cluster) for _ in range(3))
    node = cluster.holder("djt:{default}")
    node.kill()
    with contextlib.suppress(OperationalError):
        work.delay()
    node.start()
    cluster.wait_until_complete()
    assert work.delay().get(timeout=PATIENCE) == 1
    assert any(runs_without_a_look(cluster) for _ in range(3))
    assert worker.tree() == processes
    assert worker.stop() == 0


def test_commands_reach_workers_on_a_cluster_whether_idle_or_busy(
    site: RedisSite, cluster: redis_servers.Cluster
) -> None:
    """Without a hint they are looked for twice a minute."""
    site.start(concurrency=1)
    assert work.delay().get(timeout=PATIENCE) == 1
    eventually(lambda: cluster.waiting() == ALL, timeout=PATIENCE)
    options: Any = {"timeout": SOON}
    for _ in range(2):
        assert len(control.ping(**options)) == 1
    running = wait_at_gate.delay(str(site.gates))
    site.wait_for_start(running)
    for _ in range(2):
        assert len(control.ping(**options)) == 1
    control.revoke(running.id, terminate=True)
    with pytest.raises(TaskRevokedError):
        running.get(timeout=PATIENCE)
    assert running.state == states.REVOKED


def test_an_idle_worker_of_a_cluster_hears_of_a_queue_that_is_new(
    site: RedisSite, cluster: redis_servers.Cluster
) -> None:
    site.start()
    assert work.delay().get(timeout=PATIENCE) == 1
    eventually(lambda: cluster.waiting() == ALL, timeout=PATIENCE)
    assert work.apply_async(queue="new").get(timeout=SOON) == 1
    eventually(lambda: cluster.waiting() == ALL + 1, timeout=PATIENCE)
    assert work.apply_async(queue="new").get(timeout=SOON) == 1
