"""What is large, or takes long: full tables, a full Redis, many tasks one after another, tasks longer than a lease."""

from __future__ import annotations

import resource
import time
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.processes import WorkerFailed, memory_bytes, running
from benchmarks.servers import Server
from benchmarks.subjects import RUN_TIMEOUT, Figures, run_some, steady_state

if TYPE_CHECKING:
    from benchmarks.workbeat import Workbeat, WorkbeatRedis

#: Tasks that a soak sends at a time.
SOAK_BATCH = 5_000


def backlog(contestant: Workbeat, server: Server, *, tasks: int, waiting: int, finished: int) -> Figures:
    """Run ``tasks`` no-op tasks in tables that hold ``waiting`` more of them and ``finished`` results."""
    contestant.prepare()
    with running(contestant.workers()) as workers:
        model = contestant.send()
        workers.wait_until(lambda: contestant.is_done(model), "the first task", timeout=RUN_TIMEOUT)
    contestant.fill_results(finished)
    # The waiting ones are due after those that we measure.
    sent = contestant.send_many(tasks)
    contestant.fill_tasks(waiting)
    contestant.settle()
    with running(contestant.workers()) as workers:
        return steady_state(contestant, server, workers, sent)


def redis_memory(
    contestant: WorkbeatRedis, server: Server, *, tasks: int, waiting: int = 0, scheduled: int = 0, unread: int = 0
) -> Figures:
    """Run ``tasks`` no-op tasks while ``waiting`` more are due after them and ``scheduled`` tomorrow: bytes of Redis
    for each of those, then as throughput. Or send ``unread`` whose results nobody asks for: what is left of them."""
    contestant.prepare()
    if unread:
        return _unread(contestant, unread)
    sent = contestant.send_many(tasks)
    before = contestant.used_bytes()
    contestant.fill(waiting)
    contestant.fill(scheduled, countdown=86_400)
    more = waiting + scheduled
    size = (contestant.used_bytes() - before) / more if more else None
    with running(contestant.workers()) as workers:
        return {"bytes/task": size, **steady_state(contestant, server, workers, sent)}


def _unread(contestant: WorkbeatRedis, count: int) -> Figures:
    with running(contestant.workers()) as workers:
        run_some(contestant, workers)
        done = contestant.count_ended() + count
        keys, used, peak = contestant.count_keys(), contestant.used_bytes(), 0
        for number in range(count):
            contestant.send()
            if number == count // 10:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        channels = contestant.count_channels()
        workers.wait_until(lambda: contestant.count_ended() >= done, f"{count} tasks", timeout=RUN_TIMEOUT, every=0.2)
        workers.wait_until(lambda: not contestant.count_waiting(), "their ends in Redis", timeout=RUN_TIMEOUT)
        return {
            "keys left": contestant.count_keys() - keys,
            "channels": channels,
            "KiB left": (contestant.used_bytes() - used) / 1024,
            "sender's KiB": grown,
        }


def soak(contestant: Workbeat, server: Server, *, tasks: int, pool: str = "") -> Figures:
    """Let a worker run ``tasks`` no-op tasks, every fiftieth of which fails: tasks per second and MiB (PSS) of its
    processes in the first and in the last third, and how much they grew after a tenth."""
    contestant.pool = pool
    contestant.prepare()
    used: list[float] = []
    failing = SOAK_BATCH // 50
    with running(contestant.workers()) as workers:
        run_some(contestant, workers)
        done, ended = contestant.count_done(), contestant.count_ended()
        moments = [time.monotonic()]
        for sent in range(0, tasks, SOAK_BATCH):
            contestant.send_many(SOAK_BATCH - failing)
            contestant.send_failing(failing)
            least = SOAK_BATCH if sent + SOAK_BATCH < tasks else 0  # it shall not run dry before the end
            workers.wait_until(lambda least=least: contestant.count_waiting() <= least, "a batch", timeout=RUN_TIMEOUT)  # type: ignore[misc]
            used.append(memory_bytes(workers.pids)["pss"] / 2**20)
            moments.append(time.monotonic())
    done, ended = contestant.count_done() - done, contestant.count_ended() - ended
    if (done, ended) != (len(used) * (SOAK_BATCH - failing), len(used) * SOAK_BATCH):
        raise WorkerFailed(f"Of {len(used) * SOAK_BATCH} tasks {done} succeeded and {ended} ended")
    third = max(1, len(used) // 3)
    return {
        "first third tasks/s": third * SOAK_BATCH / (moments[third] - moments[0]),
        "last third tasks/s": third * SOAK_BATCH / (moments[-1] - moments[-1 - third]),
        "first third MiB": median(used[:third]),
        "last third MiB": median(used[-third:]),
        "most MiB": max(used),
        "growth MiB": used[-1] - used[len(used) // 10],
    }


def lease(
    contestant: Workbeat, server: Server, *, lease: float, seconds: float, workers: int, scheduled: int
) -> Figures:
    """Let ``workers`` workers whose lease is much shorter run a task each that takes ``seconds``, and ``scheduled``
    that are due after as long: how often each ran. A worker that the machine does not let renew its lease is lost, and
    its task runs again."""
    contestant.configure(WORKER_LEASE=lease, WORKER_HEARTBEAT_INTERVAL=lease / 5, WORKER_RESCUE_INTERVAL=lease / 5)
    contestant.prepare()
    journal = server.directory / "journal"
    long, later = range(workers), range(workers, workers + scheduled)
    with running(contestant.workers() * workers) as crowd:
        run_some(contestant, crowd)
        done = contestant.count_ended() + len(long) + len(later)
        began = time.monotonic()
        contestant.send_lingering(journal, long, seconds)
        contestant.send_lingering(journal, later, 0.0, countdown=seconds)
        crowd.wait_until(
            lambda: contestant.count_ended() >= done, "all tasks", timeout=seconds + RUN_TIMEOUT, every=0.5
        )
        time.sleep(3 * lease)  # whoever believes one lost would have run it again by now
        lost = contestant.count_lost_workers()
    runs = [line.split() for line in journal.read_text().splitlines()]
    counts = Counter(int(number) for number, _ in runs)
    return {
        "tasks": len(long) + len(later),
        "runs": len(runs),
        "most of one": max(counts.values()),
        "not run": len(long) + len(later) - len(counts),
        "workers lost": lost,
        "first ETA after s": min(float(at) for number, at in runs if int(number) in later) - began,
    }
