"""The verb ``watch`` of ``manage.py tasks``: how far tasks are, again and again; as a live table where rich is
installed."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from time import sleep
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from .. import dashboard, display, ids, states
from ..conf import settings
from ..dashboard import QueueNumbers
from ..models import Task, TaskResult
from ..routing import validate_queue
from ..utils.log import escape

#: Exit codes.
PROBLEM, USAGE = 1, 2
#: Running tasks that are listed: those that have run for the longest time.
MOST: Final = 30
#: The state of an id that nobody knows.
UNKNOWN: Final = "UNKNOWN"

_COUNTED: Final = ("waiting", "scheduled", "limited", "running", "unroutable", "workers")


@dataclass(frozen=True, slots=True)
class Watched:
    """How far one task is."""

    id: str
    name: str
    queue: str
    state: str
    #: What it told of itself: how much is done, and of how much.
    current: float | None = None
    total: float | None = None
    #: How long it has run, or ran.
    seconds: float | None = None
    #: The name of its worker; of a failure, its exception.
    note: str = ""

    @property
    def is_over(self) -> bool:
        """Is there nothing to wait for?"""
        return self.state in states.FINISHED or self.state == UNKNOWN

    @property
    def progress(self) -> str:
        """How far it is, as text."""
        if self.current is None or not self.total:
            return ""
        return f"{self.current:g}/{self.total:g} ({self.current / self.total:.0%})"


@dataclass(frozen=True, slots=True)
class Look:
    """What there was at a moment of the database's clock."""

    at: datetime
    queues: list[QueueNumbers]
    tasks: list[Watched]


def look_at(task_ids: Sequence[str]) -> Look:
    """Return how far these tasks are, in this order. At most four queries."""
    now = dashboard.database_now()
    keys = [ids.key_of(one) for one in task_ids]
    # A task only moves from the to-do list to the ledger, so in this order none is missed.
    found: dict[str, Task | TaskResult] = {str(row.pk): row for row in _rows(Task).filter(pk__in=keys)}
    found |= {str(row.pk): row for row in _rows(TaskResult).filter(pk__in=[one for one in keys if one not in found])}
    names = _worker_names(found.values())
    watched = [
        _watched(found[key], now, names) if key in found else Watched(given, "", "", UNKNOWN)
        for key, given in zip(keys, task_ids, strict=True)
    ]
    return Look(now, [], watched)


def look_around(queue: str | None) -> Look:
    """Return what the queues hold, or the one of this name, and what runs. Five queries."""
    now = dashboard.database_now()
    numbers = dashboard.queue_numbers(now, dashboard.current_workers())
    running = _rows(Task).filter(state=states.STARTED, started_at__isnull=False)
    if queue is not None:
        numbers = [one for one in numbers if one.name == queue] or [QueueNumbers(queue, 0, 0, 0, 0, 0, None, 0)]
        running = running.filter(queue=queue)
    rows = list(running.order_by("started_at")[:MOST])
    names = _worker_names(rows)
    return Look(now, numbers, [_watched(row, now, names) for row in rows])


def _rows(model: Any) -> Any:
    payload = ("body", "options", "history") + (("result", "traceback") if model is TaskResult else ())
    return model.objects.using(settings.DATABASE).defer(*payload)


def _worker_names(rows: Any) -> dict[int, str]:
    pks = {row.worker_id for row in rows if isinstance(row, Task) and row.worker_id}
    return dashboard.worker_names(pks) if pks else {}


def _watched(row: Task | TaskResult, now: datetime, workers: dict[int, str]) -> Watched:
    call = {"id": row.task_id, "name": row.name, "queue": row.queue}
    if isinstance(row, TaskResult):
        return Watched(**call, state=row.state, seconds=row.runtime, note=row.exception)
    current, total = display.numbers(row) or (None, None)
    return Watched(
        **call,
        state=row.shown_state,
        current=current,
        total=total,
        seconds=None if row.started_at is None else max(0.0, (now - row.started_at).total_seconds()),
        note=workers.get(row.worker_id or 0, ""),
    )


class WatchVerb:
    """Part of the command ``tasks``, which parses, shows and delegates."""

    stdout: Any
    stderr: Any

    def add_watch_verb(self, add: Callable[[str, str], CommandParser]) -> None:
        """Declare the verb."""
        verb = add(
            "watch",
            "Show how far tasks are, until they are done; or what the queues hold and what runs, until Ctrl-C. With "
            "--json, one document a line.",
        )
        verb.add_argument("ids", nargs="*", metavar="ID", help="Ids of tasks, also of your own.")
        verb.add_argument("--queue", type=_queue, metavar="QUEUE", help="Only this queue.")
        verb.add_argument("--every", type=_seconds, default=1.0, metavar="SECONDS", help="Between looks (default: 1).")
        verb.add_argument("--until-empty", action="store_true", help="End when nothing waits and nothing runs.")

    def do_watch(self, given: Namespace) -> int:
        if given.ids and (given.queue or given.until_empty):
            raise CommandError("--queue and --until-empty are for queues: name no tasks with them.", returncode=USAGE)
        look = _Empty
        try:
            with self._shower(given) as show:
                while True:
                    look = look_at(given.ids) if given.ids else look_around(given.queue)
                    show(look)
                    if _is_over(look, given):
                        break
                    sleep(given.every)
        except KeyboardInterrupt:
            pass
        return PROBLEM if given.ids and any(one.state != states.SUCCESS for one in look.tasks) else 0

    @contextmanager
    def _shower(self, given: Namespace) -> Iterator[Callable[[Look], None]]:
        """Give what shows a look, in the way that is asked for or possible."""
        if given.json:
            yield lambda look: self.stdout.write(json.dumps(asdict(look), default=_as_json))
            return
        if self.stdout.isatty():
            try:
                from rich.console import Console
                from rich.live import Live
            except ImportError:
                self.stderr.write("For a live table: pip install 'django-workbeat[cli]'")
            else:
                with Live(console=Console(file=self.stdout._out), auto_refresh=False, transient=False) as live:
                    yield lambda look: live.update(_table(look), refresh=True)
                return
        yield _Changes(self.stdout.write).show


_Empty: Final = Look(datetime.min, [], [])


def _is_over(look: Look, given: Namespace) -> bool:
    if given.ids:
        return all(one.is_over for one in look.tasks)
    if not given.until_empty:
        return False
    return not look.tasks and not any(one.waiting or one.scheduled or one.limited or one.running for one in look.queues)


class _Changes:
    """Writes a line for each thing that is not as it was."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._told: dict[str, str] = {}

    def show(self, look: Look) -> None:
        clock = f"{timezone.localtime(look.at):%H:%M:%S}"
        lines = {f"queue {one.name}": _of_queue(one) for one in look.queues}
        lines |= {one.id: _of_task(one) for one in look.tasks}
        for key, line in lines.items():
            if self._told.get(key) != line:
                self._write(f"{clock} {line}")
        self._told = lines


def _of_queue(one: QueueNumbers) -> str:
    return f"queue {escape(one.name)}: " + ", ".join(f"{getattr(one, name)} {name}" for name in _COUNTED)


def _of_task(one: Watched) -> str:
    said = (escape(one.id), one.state, one.progress, escape(one.name), escape(one.note))
    return "  ".join(part for part in said if part)


def _table(look: Look) -> Any:
    """Return a look as rich draws it; texts are texts, whatever is written in them."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = []
    if look.queues:
        queues = Table("queue", *_COUNTED)
        for each in look.queues:
            queues.add_row(Text(escape(each.name)), *(str(getattr(each, name)) for name in _COUNTED))
        parts.append(queues)
    tasks = Table("task", "state", "progress", "", "seconds", "worker or exception")
    for one in look.tasks:
        bar = ProgressBar(one.total, one.current or 0.0, width=20) if one.total else ""
        seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
        name = Text(f"{escape(one.name)}\n{escape(one.id)}")
        tasks.add_row(name, Text(escape(one.state)), bar, one.progress, seconds, Text(escape(one.note)))
    return Group(*parts, tasks)


def _queue(text: str) -> str:
    try:
        return validate_queue(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.1 <= found <= 3_600:
        raise ArgumentTypeError(f"{text!r}; allowed: seconds from 0.1 to 3600")
    return found


def _as_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
