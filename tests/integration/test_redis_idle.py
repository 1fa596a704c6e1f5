"""What a worker without work asks of Redis, and what wakes it."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from django_tasks.backends import get_broker
from django_tasks.backends.base import Queues
from django_tasks.backends.message import Holder
from django_tasks.backends.redis.server import script_text
from django_tasks.backends.redis.wakers import NET
from django_tasks.models import Worker
from tests.backends.calls import a_worker, ids
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.integration.jobs import wait_at_gate, work
from tests.integration.limited_jobs import two_at_a_time
from tests.integration.redis_site import RedisSite

#: Heartbeats to watch; while nothing runs there is one in two seconds.
BEATS = 5
FAST_BEATS: dict[str, Any] = {"WORKER_HEARTBEAT_INTERVAL": 1.0, "WORKER_LEASE": 4.0, "WORKER_RESCUE_INTERVAL": 2.0}
#: Seconds within which a hint is seen, on a busy machine; without one it takes longer by far.
SOON = NET / 2


@pytest.fixture
def site(database: TestDatabase, tmp_path: Path) -> Iterator[RedisSite]:
    """Give a site without workers, and a Redis of its own."""
    with closing(RedisSite.open(database, tmp_path)) as site:
        yield site


def commands(site: RedisSite, beats: int) -> Counter[str]:
    """Return the commands that arrive from one heartbeat to another one, that many later; a script counts as one."""
    beat = {script_text("beat", sparing=sparing)[1] for sparing in (True, False)}
    found: Counter[str] = Counter()
    with site.redis.client() as client, client.monitor() as monitor:
        for entry in monitor.listen():
            if entry["client_type"] == "lua":
                continue
            name, *words = entry["command"].split()
            is_beat = bool(beat.intersection(words))
            if is_beat or found["beat"]:
                found["beat" if is_beat else name] += 1
            if found["beat"] > beats:
                return found
    raise AssertionError("the monitor ended")


@pytest.mark.timeout(240)
@pytest.mark.databases("sqlite")
def test_an_idle_worker_sends_little_but_its_heartbeat(site: RedisSite) -> None:
    """What else has to be looked at goes along with it, also while tasks wait for their time."""
    site.start(**FAST_BEATS)
    later = work.enqueue_many([()] * 50, countdown=600)
    assert work.delay().get(timeout=60) == 1
    commands(site, 1)  # until it has come to rest
    found = commands(site, BEATS)
    # Rows that wait are compared with Redis now and then, by one script, and nothing else comes as often as that.
    assert found.total() - found["beat"] <= BEATS, found
    assert not any(result.ready() for result in later)


def wait_until_all_wait(site: RedisSite, count: int) -> None:
    """Return once so many connections wait for tokens: one of each child, and the supervisor's."""
    with site.redis.client() as client:
        site.wait_for(lambda: sum(one["cmd"] == "blpop" for one in client.client_list()) == count)


@pytest.mark.timeout(240)
@pytest.mark.databases("sqlite")
def test_idle_children_are_handed_tasks_without_their_supervisor(site: RedisSite) -> None:
    """A wait does not keep the worker from ending at once, either."""
    worker = site.start(WORKER_HEARTBEAT_INTERVAL=5.0, WORKER_LEASE=60.0)
    assert work.delay().get(timeout=60) == 1
    wait_until_all_wait(site, 3)
    worker.send(signal.SIGSTOP)
    try:
        for durable in (True, False):
            assert work.apply_async(durable=durable).get(timeout=SOON) == 1
    finally:
        worker.send(signal.SIGCONT)
    wait_until_all_wait(site, 3)
    began = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - began < SOON


@pytest.mark.timeout(240)
@pytest.mark.databases("sqlite")
def test_all_idle_children_hear_of_a_queue_that_is_new(site: RedisSite) -> None:
    site.start()
    assert work.delay().get(timeout=60) == 1
    wait_until_all_wait(site, 3)
    long = wait_at_gate.apply_async((str(site.gates),), queue="new")
    started = site.wait_for_start(long)
    assert work.apply_async(queue="new").get(timeout=SOON) == 1
    site.open_gate(started)
    assert long.get(timeout=60) == 1


@pytest.mark.timeout(240)
@pytest.mark.databases("sqlite")
def test_an_idle_worker_hears_of_what_limits_let_through(site: RedisSite) -> None:
    """Such a task is in no queue of Redis before that."""
    site.start(IMPORTS=["tests.integration.limited_jobs", "tests.integration.jobs"])
    for _ in range(2):
        assert work.delay().get(timeout=60) == 1
        assert two_at_a_time.delay(0.0).get(timeout=SOON) == 1


@pytest.mark.timeout(240)
@pytest.mark.databases("sqlite")
def test_what_is_handed_to_a_child_that_is_gone_comes_back(site: RedisSite) -> None:
    """As when Redis hears of its end only after the worker has looked at what it held."""
    modules = ["tests.integration.jobs", "tests.integration.hasty"]
    worker = site.start("-Q", "default", concurrency=1, IMPORTS=modules)
    assert work.delay().get(timeout=60) == 1
    wait_until_all_wait(site, 2)
    [child] = worker.children()
    child.kill()
    site.wait_for(lambda: worker.children() and child not in worker.children())
    wait_until_all_wait(site, 2)
    broker, elsewhere, row = get_broker(), Queues(("other",)), Worker.objects.get()
    sent = work.apply_async(queue="other")
    gone = Holder(row.pk, 1, row.name)
    assert ids(broker.step([], holder=gone, queues=elsewhere, limit=1).deliveries) == [sent.id]
    other = a_worker(broker)
    again = eventually(lambda: broker.step([], holder=other, queues=elsewhere, limit=1).deliveries, timeout=60)
    assert ids(again) == [sent.id]
