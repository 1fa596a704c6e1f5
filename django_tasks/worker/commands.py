"""The commands that every worker obeys, with the replies of Celery's workers.

Each runs in the steward's thread and takes a moment only: it looks at memory, asks the broker one short question, or
tells the supervisor what to do. https://docs.celeryq.dev/en/stable/userguide/workers.html
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from django.db import connections
from django.views.debug import SafeExceptionReporterFilter

from .. import __version__, client, ids, limits, panel, rates
from ..backends import get_broker
from ..backends.control import Seen
from ..conf import settings
from ..redaction import hidden_call, taken_in
from ..result import signal_name
from ..routing import validate_queue
from ..serialization import loads
from ..stamps import matching, wanted
from .memory import usage
from .remote import State, able
from .report import report_text, settings_given
from .slots import Running

F = TypeVar("F", bound=Callable[..., Any])

#: Most tasks of which one reply tells.
MOST = 1_000


def _command(kind: panel.Kind, **options: Any) -> Callable[[F], F]:
    def add(function: F) -> F:
        panel.add_command(function, kind, builtin=True, **options)
        return function

    return add


_looks = partial(_command, "inspect")
_acts = partial(_command, "control")


# Looking -------------------------------------------------------------------------------------------------------------


@_looks(default_timeout=2.0)  # beats, which are asked, too, look for it once a second
def ping(state: State) -> Any:
    """Say that the worker is there."""
    return {"ok": "pong"}


@_looks()
def clock(state: State) -> Any:
    """Tell a number that grows with every command."""
    return {"clock": state.command_id}


@_looks(visible=False)
def hello(state: State, from_node: str = "", revoked: Any = None) -> Any:
    """Greet another node."""
    return {"clock": state.command_id, "revoked": []}


@_looks()
def report(state: State) -> Any:
    """Tell versions and settings as a text."""
    return {"ok": report_text()}


@_looks(alias="dump_conf", args=[("with_defaults", lambda text: text.lower() in ("1", "true", "yes", "on"))])
def conf(state: State, with_defaults: bool = False) -> Any:
    """Tell the settings in DJANGO_TASKS, secrets hidden."""
    given = settings_given()
    names = sorted(type(settings).table()) if with_defaults else sorted(given)
    hide = SafeExceptionReporterFilter().cleanse_setting
    return {name.lower(): hide(name, getattr(settings, name)) for name in names}


@_looks(alias="dump_active")
def active(state: State) -> Any:
    """Tell the tasks that run."""
    running = _running(state)
    return [_info(state, seen, *running[seen.key, seen.attempt]) for seen in _seen(running)]


@_looks(alias="dump_reserved")
def reserved(state: State) -> Any:
    """Tell the tasks that were taken and not begun."""
    return [_info(state, seen) for seen in get_broker().peek(state.worker.steward.unstarted()[:MOST])]


@_looks(alias="dump_schedule")
def scheduled(state: State) -> Any:
    """Tell the tasks that wait for their ETA or their next attempt; each is told by one worker."""
    return [
        {
            "eta": datetime.fromtimestamp(seen.due, UTC).isoformat(),
            "priority": seen.priority,
            "request": _info(state, seen),
        }
        for seen in _scheduled(state)
    ]


@_looks(variadic="ids", signature="ID …")
def query_task(state: State, ids: Iterable[str] = ()) -> Any:
    """Tell what the worker knows of these tasks."""
    asked = {_key(one): str(one) for one in ([ids] if isinstance(ids, str) else ids)}
    running = _running(state)
    unstarted = set(state.worker.steward.unstarted())
    found: dict[str, Any] = {}
    later = None
    for seen in get_broker().peek([one for one in asked if one]):
        if (seen.key, seen.attempt) in running:
            told = ["active", _info(state, seen, *running[seen.key, seen.attempt])]
        elif seen.key in unstarted:
            told = ["reserved", _info(state, seen)]
        else:
            later = later if later is not None else {one.key for one in _scheduled(state)}
            if seen.key not in later:
                continue
            told = ["scheduled", _info(state, seen)]
        found[asked[seen.key]] = told
    return found


@_looks(alias="dump_tasks", variadic="taskinfoitems", signature="[ATTRIBUTE …]")
def registered(state: State, taskinfoitems: Iterable[str] | None = None) -> Any:
    """Tell the names of the tasks that the worker knows, with these attributes."""
    wanted = list(taskinfoitems or ("rate_limit",))

    def line(name: str) -> str:
        values = ((item, getattr(state.tasks[name], item, None)) for item in wanted)
        told = [f"{item}={value}" for item, value in values if value]
        return f"{name} [{' '.join(told)}]" if told else name

    return [line(name) for name in sorted(state.tasks)]


@_looks()
def active_queues(state: State) -> Any:
    """Tell the queues that the worker consumes."""
    return [_queue(name) for name in _queues(state)]


@_looks(alias="dump_revoked")
def revoked(state: State) -> Any:
    """Tell the ids of revoked tasks: those asked to stop, and the last thousand that ended so."""
    return get_broker().revoked(limit=MOST)


@_looks(default_timeout=2.0)
def stacks(state: State) -> Any:
    """Tell as a text what the threads of each process do right now, and coroutines."""
    running = _running(state)
    names = {(seen.key, seen.attempt): f"{seen.name} ({seen.id})" for seen in _seen(running)}
    found = state.worker.stacks()

    def about(pid: int) -> str:
        runs = [names.get(key, key[0]) for key, (where, _) in running.items() if where == pid]
        head = f"Process {pid} runs {', '.join(runs) or 'nothing'}."
        return f"{head}\n\n{found.get(pid) or 'It says nothing: it is stopped, has just begun, or is about to end.'}"

    return {"ok": "\n\n".join(about(pid) for pid in sorted(state.worker.child_pids().values()))}


@_looks()
def stats(state: State) -> Any:
    """Tell numbers and facts of the worker."""
    worker = state.worker
    pids = sorted(worker.child_pids().values())
    info, child = worker.info, worker.options.child
    connection = connections[get_broker().alias]
    where = connection.settings_dict
    return {
        "total": worker.steward.totals(),
        "pid": os.getpid(),
        "clock": str(state.command_id),
        "uptime": int(time.monotonic() - worker.steward.began),
        "pool": {
            "implementation": f"django_tasks.worker:{info.pool}",
            "max-concurrency": info.concurrency,
            "processes": pids,
            "max-tasks-per-child": child.max_tasks or "N/A",
            "put-guarded-by-semaphore": False,
            "timeouts": [child.limits.soft or 0, child.limits.hard or 0],
        },
        "broker": {
            "transport": connection.vendor,
            "hostname": where["HOST"] or "localhost",
            "port": int(where["PORT"]) if str(where["PORT"]).isdecimal() else None,
            "userid": where["USER"] or None,
            "virtual_host": str(where["NAME"]),
            "alias": get_broker().alias,
        },
        "prefetch_count": child.most_claims or 0,
        "rusage": _usage(),
        "version": __version__,
        "processes": {str(pid): usage(pid) for pid in dict.fromkeys([os.getpid(), *pids])},
        "clock_skew": worker.steward.clock_skew(),
        **_autoscaler(worker),
    }


# Acting --------------------------------------------------------------------------------------------------------------


@_acts(variadic="task_id", signature="ID …")
def revoke(state: State, task_id: Any, terminate: bool = False, signal: str = "SIGTERM") -> Any:
    """Cancel tasks."""
    given = [task_id] if isinstance(task_id, str) else [str(one) for one in task_id]
    signal = signal_name(signal)
    keys = {key: one for one in given if (key := _key(one))}
    broker = get_broker()
    try:
        broker.revoke(list(keys), terminate=signal if terminate else None)
    finally:
        _hang_up()
    if not terminate:
        return {"ok": f"tasks {set(given)} flagged as revoked"}
    end = able(state.worker, "terminate")
    ended = [
        keys[running.id]
        for _, running in state.worker.steward.running()
        if running.id in keys and end(running.id, running.attempt, signal)
    ]
    return {"ok": f"terminate: {', '.join(ended) or 'tasks unknown'}"}


@_acts(args=[("signal", str)], variadic="task_id", signature="SIGNAL ID …")
def terminate(state: State, signal: str, task_id: Any) -> Any:
    """Cancel tasks, and end those that run."""
    return revoke(state, task_id, True, signal)


@_acts(variadic="headers", signature="STAMP=VALUE …")
def revoke_by_stamped_headers(
    state: State, headers: Any, terminate: bool = False, signal: str = "SIGTERM", stored: bool = False
) -> Any:
    """Cancel tasks by their stamps."""
    stamps, signal = wanted(headers), signal_name(signal)
    if not stored:  # else the sender has done it
        try:
            client.revoke_where(stamps=stamps, terminate=signal if terminate else None)
        finally:
            _hang_up()
    if not terminate:
        return {"ok": f"headers {stamps} flagged as revoked, but not terminated"}
    end = able(state.worker, "terminate")
    ended: dict[str, set[str]] = {}
    for seen in _seen(_running(state)):
        carried = matching(seen.options, stamps)
        if carried and end(seen.key, seen.attempt, signal):
            for name, values in carried.items():
                ended.setdefault(name, set()).update(values)
    return {"ok": f"headers {ended} revoked" if ended else f"headers {stamps} were not terminated"}


@_acts(args=[("task_name", str), ("rate_limit", str)], signature="TASK RATE")
def rate_limit(state: State, task_name: str, rate_limit: Any, stored: bool = False) -> Any:
    """Let so many of a task start in a time, in all workers: 10/s, 100/m, 5/h; 0 for any."""
    try:
        rate = rates.parse(rate_limit)
    except (TypeError, ValueError) as error:
        return {"error": f"Invalid rate limit string: {error!r}"}
    if task_name not in state.tasks:
        return {"error": "unknown task"}
    if not stored:  # else the sender has done it, maybe in a transaction that still is open
        try:
            limits.change("task", task_name, rate=rate_limit)
        finally:
            _hang_up()
    return {"ok": "rate limit disabled successfully" if rate is None else "new rate limit set successfully"}


@_acts(args=[("task_name", str), ("soft", float), ("hard", float)], signature="TASK SOFT_SECONDS [HARD_SECONDS]")
def time_limit(state: State, task_name: str, soft: float | None = None, hard: float | None = None) -> Any:
    """Give a task other time limits in this worker."""
    if task_name not in state.tasks:
        return {"error": "unknown task"}
    able(state.worker, "set_time_limits")(task_name, hard, soft)
    return {"ok": "time limits set successfully"}


@_acts(args=[("n", int)])
def pool_grow(state: State, n: int = 1) -> Any:
    """Have N more processes."""
    able(state.worker, "grow")(n)
    return {"ok": "pool will grow"}


@_acts(args=[("n", int)])
def pool_shrink(state: State, n: int = 1) -> Any:
    """Have N processes less."""
    able(state.worker, "shrink")(n)
    return {"ok": "pool will shrink"}


@_acts()
def pool_restart(state: State) -> Any:
    """Replace the processes, each after its task."""
    able(state.worker, "restart_children")()
    return {"ok": "reload started"}


@_acts(args=[("max", int), ("min", int)])
def autoscale(state: State, max: int, min: int = 1) -> Any:
    """Have between MIN and MAX processes, as the work demands."""
    able(state.worker, "autoscale")(max, min)
    return {"ok": f"autoscale now max={max} min={min}"}


def _cold(word: str) -> bool:
    if word != "cold":
        raise ValueError("allowed is cold, or nothing")
    return True


@_acts(args=[("cold", _cold)], signature="[cold]")
def shutdown(state: State, cold: bool = False) -> Any:
    """Stop the worker: running tasks are finished, the rest goes back; cold: they are killed, and go back, too."""
    if not isinstance(cold, bool):
        raise TypeError(f"cold must be True or False, not {cold!r}")
    if cold:
        able(state.worker, "stop_now")()
        return {"ok": "shutting down at once"}
    state.worker.stop()
    return {"ok": "shutting down"}


@_acts(args=[("queue", str)])
def add_consumer(state: State, queue: str) -> Any:
    """Consume another queue."""
    validate_queue(queue)
    able(state.worker, "add_consumer")(queue)
    return {"ok": f"add consumer {queue}"}


@_acts(args=[("queue", str)])
def cancel_consumer(state: State, queue: str) -> Any:
    """Take nothing from a queue any more."""
    validate_queue(queue)
    able(state.worker, "cancel_consumer")(queue)
    return {"ok": f"no longer consuming from {queue}"}


@_acts()
def quiet(state: State) -> Any:
    """Take nothing new; what runs goes on."""
    able(state.worker, "quiet")()
    return {"ok": "takes nothing new"}


@_acts()
def resume(state: State) -> Any:
    """Take tasks again after quiet."""
    able(state.worker, "resume")()
    return {"ok": "takes tasks again"}


@_acts()
def heartbeat(state: State) -> Any:
    """Renew the lease now."""
    state.worker.steward.beat_now()


# Inside --------------------------------------------------------------------------------------------------------------


def _running(state: State) -> dict[tuple[str, int], tuple[int, Running]]:
    """Return what runs here, by id and attempt, with its process."""
    pids = state.worker.child_pids()
    return {(run.id, run.attempt): (pids.get(slot, 0), run) for slot, run in state.worker.steward.running()}


def _seen(running: Mapping[tuple[str, int], Any]) -> list[Seen]:
    found = get_broker().peek([key for key, _ in running])
    return [seen for seen in found if (seen.key, seen.attempt) in running]


def _scheduled(state: State) -> list[Seen]:
    """Return what is due later and for this worker to tell: that of the queues which no elder worker consumes."""
    broker, me = get_broker(), state.worker.steward.worker
    elders = []
    for node in broker.nodes():
        if node.id == me:
            break
        elders.append(node)
    queues = state.worker.info.queues
    found = broker.scheduled(queues.names, queues.excluded, limit=MOST)
    return [seen for seen in found if not any(elder.consumes(seen.queue) for elder in elders)]


def _info(state: State, seen: Seen, pid: int | None = None, run: Running | None = None) -> dict[str, Any]:
    args, kwargs = _arguments(seen)
    return {
        "id": seen.id,
        "name": seen.name,
        "args": args,
        "kwargs": kwargs,
        "type": seen.name,
        "hostname": state.hostname,
        "time_start": None if run is None else time.time() - (time.monotonic() - run.since),
        "acknowledged": run is not None and seen.at_most_once,
        "delivery_info": {
            "exchange": "",
            "routing_key": seen.queue,
            "priority": seen.priority,
            "redelivered": seen.losses > 0,
        },
        "worker_pid": pid or None,
    }


def _arguments(seen: Seen) -> tuple[Any, Any]:
    """Return what a task was called with, as people may see it; what cannot be read here is told as text."""
    try:
        args, kwargs = loads(seen.body, seen.encoding, settings.ACCEPT_CONTENT)
        options = client.options_of(seen.options)
        hidden = hidden_call(seen.name, args, kwargs, options, taken=taken_in(options))
        return options.get("argsrepr") or hidden[0], options.get("kwargsrepr") or hidden[1]
    except Exception as error:
        return f"<{error}>", {}


def _key(task_id: Any) -> str:
    return ids.key_of(str(task_id)) if task_id else ""


def _queues(state: State) -> list[str]:
    queues = state.worker.info.queues
    declared = {task.queue for task in state.tasks.values() if isinstance(getattr(task, "queue", None), str)}
    names = queues.names or sorted({settings.TASK_DEFAULT_QUEUE, *declared})
    return [name for name in names if name and name not in queues.excluded]


def _queue(name: str) -> dict[str, Any]:
    exchange = {
        "name": name,
        "type": "direct",
        "arguments": None,
        "durable": True,
        "passive": False,
        "auto_delete": False,
        "delivery_mode": None,
        "no_declare": False,
    }
    return {
        "name": name,
        "exchange": exchange,
        "routing_key": name,
        "queue_arguments": None,
        "binding_arguments": None,
        "consumer_arguments": None,
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": False,
        "alias": None,
        "bindings": [],
        "no_declare": None,
        "expires": None,
        "message_ttl": None,
        "max_length": None,
        "max_length_bytes": None,
        "max_priority": None,
    }


def _autoscaler(worker: Any) -> dict[str, Any]:
    """Return what Celery's workers tell if they autoscale; else nothing."""
    if (bounds := getattr(worker, "autoscales", None)) is None:
        return {}
    taken = len(worker.steward.running()) + len(worker.steward.unstarted())
    return {"autoscaler": {"max": bounds[0], "min": bounds[1], "current": len(worker.child_pids()), "qty": taken}}


def _hang_up() -> None:
    """Close this thread's own connection: none may cross a fork."""
    connections[get_broker().alias].close()


def _usage() -> dict[str, Any]:
    if sys.platform == "win32":
        return {}
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {name.removeprefix("ru_"): getattr(usage, name) for name in dir(usage) if name.startswith("ru_")}
