"""The command line: ``python -m benchmarks throughput --broker postgresql --peers celery``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report, servers
from benchmarks.contestant import PEERS
from benchmarks.peers import environment
from benchmarks.subjects import Figures

DATABASES = ("postgresql", "sqlite", "mariadb")
BROKERS = (*DATABASES, "redis")
#: Ours on Redis, by what it keeps of a task that is not done.
REDIS = {"no rows": "workbeat-redis", "durable": "workbeat-redis-durable"}
#: Ours in each kind of pool: contestant, and what ``--pool`` says.
POOLS = {
    "prefork=2": ("workbeat", "prefork=2"),
    "prefork=4": ("workbeat", "prefork=4"),
    "threads=2": ("workbeat", "threads=2"),
    "threads=16": ("workbeat", "threads=16"),
    "asyncio=100, coroutines": ("workbeat-coroutines", "asyncio=100"),
    "asyncio=100, functions": ("workbeat", "asyncio=100"),
    "solo": ("workbeat", "solo"),
}
#: Kinds of flow control.
KINDS = ("concurrency", "rate", "fair", "unique", "tagged")
#: Above this load average the machine is not ours alone: rates mean little, CPU per task something.
QUIET_LOAD = 0.7

#: By label the contestant, the kind of its server, and options.
Orders = dict[str, tuple[str, str, dict[str, Any]]]


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    subjects = parser.add_subparsers(dest="subject", required=True)

    def subject(
        name: str, help_text: str, *, peers: bool = True, rounds: int = 3, brokers: Sequence[str] = BROKERS
    ) -> argparse.ArgumentParser:
        command = subjects.add_parser(name, help=help_text, description=help_text)
        command.add_argument("--broker", choices=brokers, default=brokers[0], help="where ours keeps its tasks")
        command.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
        command.add_argument("--rounds", type=_positive, default=rounds, help="repeat this often, print medians")
        if peers:
            names = f"of {_listed(PEERS)}; all; none"
            command.add_argument("--peers", type=_peers, default=list(PEERS), metavar="NAME,…", help=names)
        return command

    command = subject("throughput", "tasks per second and CPU per task of a worker with two processes")
    command.add_argument("--tasks", type=_positive, default=60_000, help="no-op tasks; slower peers get fewer")
    command.add_argument("--pool", default="prefork=2", metavar="POOL", help="how our worker runs them")
    command = subject("limit", "the bare claim-and-finish loop of this machine, and ours", peers=False)
    command.add_argument("--tasks", type=_positive, default=60_000, help="no-op tasks")
    command = subject("enqueue", "sending, one by one and in bulk")
    command.add_argument("--tasks", type=_positive, default=3_000, help="one by one; in bulk ten times as many")
    command = subject("latency", "from the call to the start of the task and to its result, worker idle")
    command.add_argument("--samples", type=_positive, default=300)
    command = subject("idle", "what a worker without work costs")
    command.add_argument("--seconds", type=_positive, default=30)
    command = subject("beat", "what an idle beat costs, and how fast it sends what is due", peers=False, rounds=1)
    command.add_argument("--schedules", type=_positive, default=10_000, help="periodic tasks")
    command.add_argument("--due", type=_positive, default=1_000, help="of which are due in the same second")
    command.add_argument("--seconds", type=_positive, default=30, help="for which it is left alone")
    command = subject("memory", "memory of a worker with two children, and with others")
    command.add_argument(
        "--children", type=_numbers, default=[1, 4, 16], metavar="N,…", help="ours with so many, too; 0 for none"
    )
    command = subject("pools", "throughput of each kind of pool", peers=False, brokers=DATABASES)
    command.add_argument("--tasks", type=_positive, default=60_000, help="no-op tasks of each kind")
    command = subject("soak", "memory of a worker over many tasks", peers=False, rounds=1)
    command.add_argument("--tasks", type=_positive, default=1_000_000, help="no-op tasks; every fiftieth fails")
    command.add_argument("--pool", default="prefork=2", metavar="POOL", help="how our worker runs them")
    command = subject("backlog", "the cost of a task in full tables", peers=False, rounds=1, brokers=DATABASES)
    command.add_argument("--tasks", type=_positive, default=60_000, help="no-op tasks that are measured")
    command.add_argument("--waiting", type=_positive, default=1_000_000, help="rows waiting behind them")
    command.add_argument("--finished", type=_positive, default=5_000_000, help="rows in the ledger")
    command = subject(
        "redis-memory", "a task's bytes in Redis, and its cost in a full one", peers=False, rounds=1, brokers=["redis"]
    )
    command.add_argument("--tasks", type=_positive, default=60_000, help="no-op tasks that are measured")
    command.add_argument("--waiting", type=_positive, default=1_000_000, help="tasks waiting behind them")
    command.add_argument("--scheduled", type=_positive, default=1_000_000, help="tasks that are due tomorrow")
    command.add_argument("--unread", type=_positive, default=100_000, help="tasks whose results nobody asks for")
    command = subject("lease", "tasks that run and wait for longer than a short lease", peers=False, rounds=1)
    command.add_argument("--lease", type=_positive, default=5, help="seconds after which a silent worker is dead")
    command.add_argument("--seconds", type=_positive, default=60, help="for which a task runs, or waits for its time")
    command.add_argument("--workers", type=_positive, default=4, help="of two processes, with one long task each")
    command.add_argument("--scheduled", type=_positive, default=1_000, help="tasks that wait for their time")
    command = subject("flow", "the cost of limits, fairness, uniqueness and tags", peers=False, rounds=1)
    command.add_argument("--tasks", type=_positive, default=30_000, help="no-op tasks of each kind")
    command.add_argument("--kinds", type=_kinds, default=list(KINDS), metavar="KIND,…", help=f"{_listed(KINDS)}; none")
    command.add_argument("--pairs", type=_number, default=30, help="rounds without limits and with others' in turn")
    command.add_argument("--burst", type=_positive, default=10_000, help="no-op tasks in each of those")
    command = subject("workflow", "chords and chains from the call to the result, and a large group", rounds=1)
    command.add_argument("--members", type=_positive, default=1_000, help="tasks in the chord's header")
    command.add_argument("--length", type=_positive, default=100, help="tasks in the chain")
    command.add_argument("--large", type=_positive, default=100_000, help="tasks in the group that is only sent")
    command = subjects.add_parser("profile", help="where a worker's time goes, by py-spy and pg_stat_statements")
    command.add_argument("--broker", choices=BROKERS, default="postgresql", help="where ours keeps its tasks")
    command.add_argument("--tasks", type=_positive, default=60_000, help="no-op tasks")
    given = parser.parse_args(line)
    if given.subject == "flow" and not given.kinds and not given.pairs:
        parser.error("flow: --kinds none and --pairs 0 leave nothing to measure")
    return given


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _numbers(text: str) -> list[int]:
    return [] if text == "0" else [_positive(each) for each in text.split(",")]


def _number(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _peers(text: str) -> list[str]:
    return _names(text, PEERS)


def _kinds(text: str) -> list[str]:
    return _names(text, KINDS)


def _names(text: str, known: Collection[str]) -> list[str]:
    names = {"all": list(known), "none": []}.get(text, text.split(","))
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {_listed(known)}, all, none")
    return names


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def orders(given: argparse.Namespace) -> Orders:
    """Return what to measure: by label the contestant, the kind of its server, and its options. Ours comes first."""
    subject, broker = given.subject, given.broker
    if subject == "backlog":
        sizes = {"empty tables": (0, 0), f"{given.waiting:,} waiting": (given.waiting, 0)}
        sizes[f"{given.finished:,} finished"] = (0, given.finished)
        return {
            label: ("workbeat", broker, {"tasks": given.tasks, "waiting": waiting, "finished": finished})
            for label, (waiting, finished) in sizes.items()
        }
    if subject == "redis-memory":
        ours, tasks = REDIS["no rows"], given.tasks
        fills = {"nothing else": {}, f"{given.waiting:,} waiting": {"waiting": given.waiting}}
        fills[f"{given.scheduled:,} scheduled"] = {"scheduled": given.scheduled}
        chosen = {label: (ours, broker, {"tasks": tasks, **each}) for label, each in fills.items()}
        unread = {"tasks": tasks, "unread": given.unread}
        return chosen | {f"{given.unread:,} unread, {word}": (name, broker, unread) for word, name in REDIS.items()}
    if subject == "flow":
        ours = REDIS["durable"] if broker == "redis" else "workbeat"  # what is limited has a row
        kinds = {"no limits": "", **{name: name for name in given.kinds}} if given.kinds else {}
        chosen = {label: (ours, broker, {"tasks": given.tasks, "control": kind}) for label, kind in kinds.items()}
        if given.pairs:
            in_turn = {"tasks": given.burst, "control": "", "pairs": given.pairs}
            chosen["limits of other tasks"] = (ours, broker, in_turn)
        return chosen
    if subject == "pools":
        return {
            label: (contestant, broker, {"tasks": given.tasks, "pool": pool})
            for label, (contestant, pool) in POOLS.items()
        }
    if subject == "workflow":
        options = {"members": given.members, "length": given.length, "large": given.large}
        peers = [name for name in given.peers if name in ("celery", "celery-tuned")]
        ours = REDIS["durable"] if broker == "redis" else "workbeat"  # what waits for others has a row
        return {"workbeat": (ours, broker, options)} | {
            name: (name, PEERS[name].kind, {**options, "large": 0}) for name in peers
        }
    options = {
        name: getattr(given, name)
        for name in ("tasks", "samples", "seconds", "pool", "schedules", "due", "lease", "workers", "scheduled")
        if hasattr(given, name)
    }
    chosen = {"workbeat": ("workbeat", broker, options)}
    if broker == "redis":
        chosen = {f"workbeat, {word}": (name, broker, options) for word, name in REDIS.items()}
    elif subject == "throughput":
        chosen["workbeat-ignored"] = ("workbeat-ignored", broker, options)
    if subject in ("throughput", "limit", "enqueue") and broker != "mariadb":
        chosen["bare"] = ("bare", broker, options)
    if subject == "memory":
        first = next(iter(chosen.values()))[0]
        chosen |= {f"workbeat, {n} children": (first, broker, {"pool": f"prefork={n}"}) for n in given.children}
    for name in getattr(given, "peers", ()):
        peer = PEERS[name]
        fewer = {"tasks": max(1_000, given.tasks * peer.share // 1_000), "pool": ""} if subject == "throughput" else {}
        if subject != "latency" or peer.keeps_results:
            chosen[name] = (name, peer.kind, options | fewer)
    return chosen


def installed(chosen: Orders) -> tuple[Orders, list[str]]:
    """Return the orders that can be measured here, and why others cannot."""
    skipped: dict[str, str] = {}
    for label, (contestant, _, _) in chosen.items():
        if contestant in PEERS:
            try:
                environment.python(PEERS[contestant].library)
            except environment.PeerMissing as error:
                skipped[label] = f"{label}: {error}"
    return {label: order for label, order in chosen.items() if label not in skipped}, list(skipped.values())


def measure(subject: str, contestant: str, kind: str, options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Run one measurement on a fresh server, in a process of the contestant's own environment.

    Return what was found, and the contestant's package with its version.
    """
    interpreter = environment.python(PEERS[contestant].library) if contestant in PEERS else sys.executable
    with servers.started(kind, "pg_stat_statements" if subject == "profile" else "") as server:
        place = {"kind": kind, "directory": str(server.directory), "port": server.port, "pid": server.pid}
        order = {"subject": subject, "contestant": contestant, "options": options}
        done = subprocess.run(
            [interpreter, "-m", "benchmarks.run", json.dumps(order | place)],
            cwd=Path(__file__).parents[1],
            env={
                **os.environ,
                "BENCHMARK_URL": server.url,
                "DATABASE_URL": server.url,
                "BENCHMARK_DIRECTORY": str(server.directory),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{contestant}: {subject} failed.\n{done.stderr[-4000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["found"], answer["version"]


def main() -> None:
    """Measure, print, write."""
    given = arguments()
    if given.subject == "profile":
        ours = REDIS["no rows"] if given.broker == "redis" else "workbeat"
        found, _ = measure("profile", ours, given.broker, {"tasks": given.tasks})
        print("\n\n".join("\n".join(lines) for lines in found.values()))
        return
    chosen, skipped = installed(orders(given))
    ours = next(iter(chosen))
    load = os.getloadavg()[0]
    rounds: dict[str, list[Figures]] = {label: [] for label in chosen}
    versions: dict[str, str] = {}
    for turn in range(given.rounds):
        for label, (contestant, kind, options) in chosen.items():
            print(f"\rround {turn + 1} of {given.rounds}: {label:<30}", end="", file=sys.stderr, flush=True)
            figures, versions[label] = measure(given.subject, contestant, kind, options)
            rounds[label].append(figures)
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    results = {label: report.medians(each) for label, each in rounds.items()}
    command = "python -m benchmarks " + " ".join(sys.argv[1:])
    python = f"Python {platform.python_version()}"
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {python}, load before {load:.2f}"
    packages = ", ".join(dict.fromkeys(filter(None, versions.values())))
    print(f"$ {command}\n{given.broker}; {machine}; medians of {given.rounds} rounds\n{packages}\n")
    for reason in skipped:
        print(f"Skipped: {reason}")
    print(report.table(given.subject, ours, results), end="\n\n")
    if load > QUIET_LOAD:
        print(f"The machine was busy (load {load:.2f}): read ratios and CPU time, not rates.")
    for budget in report.budgets(given.subject, given.broker, ours, results):
        print(budget)
    if given.json:
        facts = {
            "command": command,
            "machine": machine,
            "packages": packages,
            "skipped": skipped,
            "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        given.json.write_text(json.dumps({**facts, "medians": results, "rounds": rounds}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
