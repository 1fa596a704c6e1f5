"""The measurements. Each takes a contestant and its server and returns figures by name.

CPU time stands beside every rate: on shared cores a rate tells as much about the neighbours as about the queue.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Any

from benchmarks import periodic
from benchmarks.contestant import Contestant
from benchmarks.processes import WorkerFailed, Workers, cpu_seconds, memory_bytes, running
from benchmarks.servers import Server

Figures = dict[str, float | None]

#: How long a worker may take for a run, in seconds.
RUN_TIMEOUT = 300.0
#: What part of the tasks passes before the clock starts: start-up, imports, first plans.
WARM_UP = 0.1


@dataclass(frozen=True)
class _Moment:
    done: int
    at: float
    worker: float
    server: float


def throughput(contestant: Contestant, server: Server, *, tasks: int, pool: str = "") -> Figures:
    """Let a worker run ``tasks`` waiting no-op tasks: tasks per second, CPU µs per task in worker and server."""
    contestant.pool = pool
    contestant.prepare()
    sent = contestant.send_many(tasks)
    with running(contestant.workers()) as workers:
        figures = steady_state(contestant, server, workers, sent)
        if contestant.keeps_results:
            _check_result(contestant)
        return figures


def steady_state(contestant: Contestant, server: Server, workers: Workers, sent: Sequence[Any]) -> Figures:
    """Measure from the moment when a tenth of ``sent`` is done until all are."""

    def moment() -> _Moment:
        return _Moment(contestant.count_done(), time.monotonic(), cpu_seconds(workers.pids), server_cpu(server))

    def done(task: Any) -> None:
        # Looking for one row is cheap, counting them is not; the last are done within a batch of each other.
        workers.wait_until(lambda: contestant.is_done(task), f"{len(sent)} tasks", timeout=RUN_TIMEOUT)

    done(sent[int(len(sent) * WARM_UP)])
    start = moment()
    done(sent[-1])
    workers.wait_until(lambda: contestant.count_done() >= len(sent), f"all {len(sent)} tasks", timeout=RUN_TIMEOUT)
    end = moment()
    count = end.done - start.done
    worker, cpu = (end.worker - start.worker) / count * 1e6, (end.server - start.server) / count * 1e6
    return {
        "tasks/s": count / (end.at - start.at),
        "worker µs": worker,
        "server µs": cpu,
        "total µs": worker + cpu,
    }


def _check_result(contestant: Contestant) -> None:
    before = time.monotonic()
    at = contestant.wait_for_stamp(contestant.send_stamp())
    if not before <= at <= time.monotonic():
        raise WorkerFailed(f"{contestant.distribution}: the result says {at:f}, which is not when the task ran")


def enqueue(contestant: Contestant, server: Server, *, tasks: int) -> Figures:
    """Send tasks one by one and, ten times as many, in thousands: tasks per second, CPU µs per task of both sides."""
    contestant.prepare()
    for _ in range(min(100, tasks)):
        contestant.send()
    figures = _sending(contestant.send, tasks, 1, server, "one")
    if contestant.sends_many:
        batch = min(1_000, tasks)
        contestant.send_many(batch)
        figures |= _sending(lambda: contestant.send_many(batch), 10 * tasks // batch, batch, server, "bulk")
    return figures


def _sending(send: Callable[[], object], calls: int, size: int, server: Server, how: str) -> Figures:
    client, cpu, start = time.process_time(), server_cpu(server), time.monotonic()
    for _ in range(calls):
        send()
    seconds = time.monotonic() - start
    client, cpu = time.process_time() - client, server_cpu(server) - cpu
    count = calls * size
    return {
        f"{how}/s": count / seconds,
        f"{how} client µs": client / count * 1e6,
        f"{how} server µs": cpu / count * 1e6,
    }


def latency(contestant: Contestant, server: Server, *, samples: int) -> Figures:
    """Send to an idle worker, ``samples`` times with pauses: ms until the task starts, and until its result is here."""
    contestant.prepare()
    started, answered = [], []
    with running(contestant.workers()) as workers:
        warm_up = [contestant.send() for _ in range(20)]
        workers.wait_until(lambda: contestant.is_done(warm_up[-1]), "20 tasks", timeout=RUN_TIMEOUT)
        for number in range(-5, samples):
            # Uneven pauses, so that no poll of anybody's falls into step with them.
            time.sleep(0.05 + number % 7 * 0.013)
            before = time.monotonic()
            at = contestant.wait_for_stamp(contestant.send_stamp())
            after = time.monotonic()
            if number >= 0:
                started.append((at - before) * 1e3)
                answered.append((after - before) * 1e3)
    return {
        "start p50 ms": percentile(started, 50),
        "start p99 ms": percentile(started, 99),
        "result p50 ms": percentile(answered, 50),
        "result p99 ms": percentile(answered, 99),
    }


def idle(contestant: Contestant, server: Server, *, seconds: float) -> Figures:
    """Leave a worker alone: percent of a core that it and its server use, statements a minute that the server gets."""
    contestant.prepare()
    with running(contestant.workers()) as workers:
        run_some(contestant, workers)
        time.sleep(15)  # queues that poll slow down by steps
        worker, cpu, start = cpu_seconds(workers.pids), server_cpu(server), time.monotonic()
        time.sleep(seconds)
        lasted = time.monotonic() - start
        worker, cpu = cpu_seconds(workers.pids) - worker, server_cpu(server) - cpu
        # Counted by itself: a PostgreSQL that writes each statement to its log works harder.
        statements = server.count_statements(seconds)
    return {
        "worker % of a core": worker / lasted * 100,
        "server % of a core": cpu / lasted * 100,
        "statements/min": None if statements is None else statements * 60 / seconds,
    }


def beat(contestant: Contestant, server: Server, *, schedules: int, due: int, seconds: float) -> Figures:
    """Leave a beat alone with ``schedules`` rows: percent of a core that it and its server use. Then let ``due`` of
    them run in the same second: seconds until the last is sent."""
    contestant.prepare()
    periodic.fill(schedules)
    with running([periodic.RUNBEAT]) as beats:
        beats.wait_until(periodic.planned, f"{schedules} rows planned", timeout=RUN_TIMEOUT)
        periodic.settle()
        time.sleep(5)
        own, cpu, start = cpu_seconds(beats.pids), server_cpu(server), time.monotonic()
        time.sleep(seconds)
        lasted = time.monotonic() - start
        own, cpu = cpu_seconds(beats.pids) - own, server_cpu(server) - cpu
        figures: Figures = {"beat % of a core": own / lasted * 100, "server % of a core": cpu / lasted * 100}
        moment = periodic.let_run(due, timedelta(seconds=10))
        beats.wait_until(lambda: periodic.sent() >= due, f"{due} runs", timeout=RUN_TIMEOUT)
        figures["all sent after s"] = (periodic.sent_last() - moment).total_seconds()
    return figures


def memory(contestant: Contestant, server: Server, *, pool: str = "") -> Figures:
    """Let a worker run 200 tasks: MiB of its processes, shared pages counted in part (PSS) and in full (RSS)."""
    contestant.pool = pool
    contestant.prepare()
    with running(contestant.workers()) as workers:
        run_some(contestant, workers)
        time.sleep(2)
        used = memory_bytes(workers.pids)
        return {"PSS MiB": used["pss"] / 2**20, "RSS MiB": used["rss"] / 2**20}


def workflow(contestant: Contestant, server: Server, *, members: int, length: int, large: int) -> Figures:
    """Run chords and chains with an idle worker: seconds from the call to the result, medians of five; then send one
    large group."""
    contestant.prepare()
    with running(contestant.workers()) as workers:
        run_some(contestant, workers)
        contestant.run_chain(3)
        contestant.run_chord(3)
        figures: Figures = {
            f"chord of {members:,} s": median(contestant.run_chord(members) for _ in range(5)),
            f"chain of {length:,} s": median(contestant.run_chain(length) for _ in range(5)),
        }
    if large:
        # Before the large group, which would be the peak of this process otherwise.
        figures["50 chords of 100 sent s"], size = contestant.send_chords(50, 100)
        figures["peak MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        figures["largest message B"] = float(size)
        client, began = time.process_time(), server_cpu(server)
        figures[f"group of {large:,} sent s"] = contestant.send_group(large)
        figures["client µs per member"] = (time.process_time() - client) / large * 1e6
        figures["server µs per member"] = (server_cpu(server) - began) / large * 1e6
    return figures


def run_some(contestant: Contestant, workers: Workers) -> None:
    contestant.send_many(200)
    workers.wait_until(lambda: contestant.count_done() >= 200, "200 tasks", timeout=RUN_TIMEOUT)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest of ``values`` that ``percent`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def server_cpu(server: Server) -> float:
    return cpu_seconds([server.pid]) if server.pid else 0.0
