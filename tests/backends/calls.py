"""Short words for what the broker's tests do again and again: a message, a worker, a claim, an outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_tasks import states
from django_tasks.backends.base import Broker, Queues, WorkerInfo
from django_tasks.backends.message import Delivery, Holder, Message, Outcome
from django_tasks.ids import new_id

#: Long enough that no lease runs out by itself while a test runs, in seconds; ``Bench.let_pass`` lets it run out.
LEASE = 3_600.0
#: Every queue there is.
ALL = Queues()


def a_message(name: str = "tests.noop", queue: str = "default", **fields: Any) -> Message:
    """Return a call without arguments under a new id."""
    return Message(**{"id": new_id(), "name": name, "queue": queue, "body": "[[],{}]", **fields})


def send(broker: Broker, *messages: Message) -> list[str]:
    """Publish messages, or one of no importance; return their ids."""
    messages = messages or (a_message(),)
    broker.publish(messages)
    return [one.id for one in messages]


def a_worker(
    broker: Broker, *, lease: float = LEASE, name: str = "worker@test", slot: int = 1, queues: Queues = ALL
) -> Holder:
    """Register a worker; return one slot of it."""
    info = WorkerInfo(
        name=name, hostname="test", pid=1, pool="prefork", concurrency=2, queues=queues, version="test", lease=lease
    )
    return Holder(broker.register(info), slot, name)


def claim(
    broker: Broker, holder: Holder, *queues: str, limit: int = 1_000, unknown: Sequence[str] = ()
) -> list[Delivery]:
    """Claim from these queues, from all if none is named."""
    return broker.step([], holder=holder, queues=Queues(queues), limit=limit, unknown=unknown).deliveries


def claim_one(broker: Broker, holder: Holder) -> Delivery:
    """Claim exactly one."""
    [delivery] = claim(broker, holder, limit=1)
    return delivery


def finish(broker: Broker, holder: Holder, *done: Any) -> frozenset[str]:
    """Hand outcomes and returns in; return what was refused."""
    return broker.step(done, holder=holder).refused


def success(delivery: Delivery, result: str = '"done"', **fields: Any) -> Outcome:
    """Return the outcome of a body that ended well after a tenth of a second."""
    return Outcome(delivery.id, delivery.attempt, states.SUCCESS, **{"result": result, "runtime": 0.1, **fields})


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    """Return the ids, in order."""
    return [one.id for one in deliveries]
