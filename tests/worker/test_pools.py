"""The words that choose pools."""

from __future__ import annotations

import pytest

from django_tasks.backends.base import Queues
from django_tasks.worker.pools import Pool, consumed, cpus, label, parse

ALL = Queues()


def parsed(*words: str, concurrency: int | None = None, queues: Queues = ALL) -> tuple[Pool, ...]:
    return parse(words, queues=queues, names_queues=False, concurrency=concurrency)


@pytest.mark.parametrize(
    ("word", "pool"),
    [
        ("prefork", Pool("prefork", ALL, cpus())),
        ("threads", Pool("threads", ALL, 16)),
        ("asyncio", Pool("asyncio", ALL, 100)),
        ("solo", Pool("solo", ALL, 1)),
        ("threads=3", Pool("threads", ALL, 3)),
        ("asyncio:io", Pool("asyncio", Queues(("io",)), 100)),
        ("asyncio:io=200", Pool("asyncio", Queues(("io",)), 200)),
        ("prefork:default,mail=4", Pool("prefork", Queues(("default", "mail")), 4)),
        ("prefork:*=4", Pool("prefork", ALL, 4)),
        ("threads:eu:mail,eu:sms=2", Pool("threads", Queues(("eu:mail", "eu:sms")), 2)),
    ],
)
def test_a_word_names_kind_queues_and_concurrency(word: str, pool: Pool) -> None:
    assert parsed(word) == (pool,)


def test_the_option_counts_where_a_word_says_nothing() -> None:
    assert [pool.concurrency for pool in parsed("threads", "asyncio=7", concurrency=5)] == [5, 7]


def test_several_pools_consume_their_queues_together() -> None:
    pools = parsed("asyncio:io,mail=2", "prefork:mail,default=3")
    assert consumed(pools) == Queues(("io", "mail", "default"))
    assert [pool.processes for pool in pools] == [1, 3]
    assert label(pools) == "asyncio+prefork"
    assert consumed(parsed("asyncio:io", "prefork")) == ALL
    assert label(parsed("asyncio:io", "prefork", "threads:mail")) == "mixed"


def test_what_the_worker_excludes_no_pool_consumes() -> None:
    excluded = Queues((), frozenset({"old"}))
    pools = parsed("asyncio:io,old", "prefork", queues=excluded)
    assert not any(pool.queues.__contains__("old") for pool in pools)
    assert not consumed(pools).__contains__("old")
