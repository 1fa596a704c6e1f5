"""What the control of the flow costs: limits, fairness, uniqueness and tags, used and unused."""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.processes import Workers, cpu_seconds, running
from benchmarks.servers import Server
from benchmarks.subjects import RUN_TIMEOUT, Figures, percentile, run_some, server_cpu, steady_state

if TYPE_CHECKING:
    from benchmarks.workbeat import Workbeat

#: In how many seconds tasks are due that are sent to an idle worker, which shall find them all at once. That is longer
#: than a worker goes by limits that it has read.
DUE = 1.5


def flow(contestant: Workbeat, server: Server, *, tasks: int, control: str, pairs: int = 0) -> Figures:
    """Send ``tasks`` no-op tasks under one kind of flow control and run them: µs to send one, then as throughput. With
    ``pairs``, compare so many rounds without limits and with limits of other tasks."""
    if pairs:
        return _in_turn(contestant, server, tasks, pairs)
    contestant.control = control
    contestant.prepare()
    start = time.monotonic()
    sent = contestant.send_many(tasks)
    sending = (time.monotonic() - start) / tasks * 1e6
    with running(contestant.workers()) as workers:
        return {"send µs": sending, **steady_state(contestant, server, workers, sent)}


def _in_turn(contestant: Workbeat, server: Server, tasks: int, pairs: int) -> Figures:
    """Let the same processes run ``tasks`` no-op tasks again and again, with no limits and with limits of other tasks
    in turn: CPU µs per task, and by how much each round with limits cost more than the two without beside it, so that
    what drifts falls out. What two rounds without limits differ by is the noise of the measurement."""
    contestant.prepare()
    with running(contestant.workers()) as workers:
        run_some(contestant, workers)
        for limited in (False, True):  # plans, caches
            _burst(contestant, server, workers, tasks, limited=limited)
        costs = [
            _burst(contestant, server, workers, tasks, limited=bool(number % 2)) for number in range(2 * pairs + 1)
        ]
    none, others = costs[::2], costs[1::2]
    beside = list(pairwise(none))
    more = [(2 * cost / (before + after) - 1) * 100 for cost, (before, after) in zip(others, beside, strict=True)]
    noise = [(after / before - 1) * 100 for before, after in beside]
    figures: Figures = {"no limits µs": median(none), "others' µs": median(others)}
    for name, values in {"more %": more, "noise %": noise}.items():
        figures |= {f"{name} p{percent}": percentile(values, percent) for percent in (25, 50, 75)}
    return figures


def _burst(
    contestant: Workbeat, server: Server, workers: Workers, tasks: int, *, limited: bool, ahead: float = DUE
) -> float:
    """Return the CPU µs per task of an idle worker for which so many become due at once, ``ahead`` seconds from now."""
    contestant.limit_others(limited)
    contestant.begin()
    due = time.monotonic() + ahead
    sent = contestant.send_many(tasks, countdown=ahead)
    before = cpu_seconds(workers.pids) + server_cpu(server)
    left = due - time.monotonic()
    time.sleep(max(0.0, left))
    workers.wait_until(lambda: contestant.is_done(sent[-1]), f"{tasks} tasks", timeout=RUN_TIMEOUT, every=0.05)
    workers.wait_until(lambda: contestant.count_done() >= tasks, f"all {tasks} tasks", timeout=RUN_TIMEOUT, every=0.05)
    time.sleep(0.1)  # until the worker is idle again
    if left <= 0:  # some ran before all were sent
        return _burst(contestant, server, workers, tasks, limited=limited, ahead=2 * ahead)
    return (cpu_seconds(workers.pids) + server_cpu(server) - before) / tasks * 1e6
