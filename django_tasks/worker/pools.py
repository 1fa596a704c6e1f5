"""How a worker runs tasks: kinds of pools, and the words of the command line that choose them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from .. import routing
from ..backends.base import Queues

#: ``prefork``: a process for each running task; ``threads`` and ``asyncio``: one process with many; ``solo``: one with
#: one.
KINDS = ("prefork", "threads", "asyncio", "solo")
#: Concurrency where nothing says; the first stands for the number of CPUs.
_USUAL = {"prefork": 0, "threads": 16, "asyncio": 100, "solo": 1}
#: Most tasks at a time in one process: each costs a little shared memory.
MOST = 10_000
#: Celery's other pools, and what does their work here.
_ELSEWHERE = {"processes": "prefork", "gevent": "asyncio or threads", "eventlet": "asyncio or threads"}


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool of a worker: what it consumes, and how many tasks run in it at the same time."""

    kind: str
    queues: Queues
    concurrency: int

    @property
    def processes(self) -> int:
        """In how many processes they run."""
        return self.concurrency if self.kind == "prefork" else 1

    def __str__(self) -> str:
        return f"{self.concurrency} ({self.kind})"


def default_kind() -> str:
    """Return the kind of pool that works on every project on this system."""
    return "prefork" if hasattr(os, "fork") else "solo"


def parse(words: Sequence[str], *, queues: Queues, names_queues: bool, concurrency: int | None) -> tuple[Pool, ...]:
    """Return the pools that ``--pool`` names: each ``KIND``, ``KIND=N``, ``KIND:QUEUE,…`` or ``KIND:QUEUE,…=N``.

    ``queues`` are those of the worker, ``names_queues`` tells whether its command line names them; ``concurrency``
    counts where ``=N`` is missing, ``None`` is the kind's own. Raises ``ValueError`` that says what is allowed.
    """
    pools = []
    for word in words:
        kind, own, number = _parts(word)
        if own and names_queues:
            raise ValueError(f"--pool {word}: name queues either here or with --queues")
        if number is None:
            number = 1 if kind == "solo" else concurrency or _USUAL[kind] or cpus()
        pools.append(Pool(kind, Queues(own, queues.excluded) if own else queues, number))
        if own and queues.excluded.issuperset(own):
            raise ValueError(f"--pool {word}: -X excludes all of its queues")
    if len(pools) > 1 and any(pool.kind == "solo" for pool in pools):
        raise ValueError(f"--pool {' --pool '.join(words)}: solo is one process, there can be no other pool beside it")
    for pool in pools:
        if pool.kind != "solo" and not hasattr(os, "fork"):
            raise ValueError(f"--pool {pool.kind} needs fork(), which this system lacks; use --pool solo")
    return tuple(pools)


def _parts(word: str) -> tuple[str, tuple[str, ...], int | None]:
    """Return kind, queues and concurrency of one word."""
    # The name of a queue may have colons, but no equals sign.
    rest, given, number = word.partition("=")
    kind, bound, names = rest.partition(":")
    if kind not in KINDS:
        hint = f"; use {_ELSEWHERE[kind]}" if kind in _ELSEWHERE else ""
        raise ValueError(f"--pool {word}: there is no pool {kind!r}; allowed are {', '.join(KINDS)}{hint}")
    if given and not (number.isascii() and number.isdecimal() and 0 < int(number) <= MOST):
        raise ValueError(f"--pool {word}: {number!r} is no concurrency; allowed: a whole number from 1 to {MOST}")
    if given and kind == "solo" and int(number) > 1:
        raise ValueError(f"--pool {word}: solo runs one task at a time")
    queues = tuple(dict.fromkeys(name for name in names.split(",") if name))
    if bound and not queues:
        raise ValueError(f"--pool {word} names no queue")
    if queues == ("*",):
        queues = ()
    try:
        for queue in queues:
            routing.validate_queue(queue)
    except ValueError as error:
        raise ValueError(f"--pool {word}: {error}") from None
    return kind, queues, int(number) if given else None


def label(pools: Sequence[Pool]) -> str:
    """Return what to call these pools in one short word."""
    kinds = list(dict.fromkeys(pool.kind for pool in pools))
    return "+".join(kinds) if len(kinds) < 3 else "mixed"


def consumed(pools: Sequence[Pool]) -> Queues:
    """Return what these pools consume together."""
    if not all(pool.queues.names for pool in pools):
        return Queues((), pools[0].queues.excluded)
    names = dict.fromkeys(name for pool in pools for name in pool.queues.names)
    return Queues(tuple(names), pools[0].queues.excluded)


def cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
