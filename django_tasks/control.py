"""Remote control: ask running workers what they do, and tell them what to do, by Celery's names.

``from django_tasks import control`` reads as Celery's ``app.control``: ``control.inspect().active()``,
``control.revoke(task_id)``, ``control.broadcast("pool_grow", {"n": 2}, reply=True)``.
https://docs.celeryq.dev/en/stable/userguide/workers.html

Commands are rows, answered by rows: a busy worker obeys a little later, and none is lost.
"""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final
from uuid import UUID

from django.db import connections, transaction

from . import client
from .backends import get_broker
from .backends.base import Queues
from .backends.control import Line, Node
from .conf import settings
from .exceptions import DuplicateNodenameWarning, WouldBlockForever
from .panel import control_command as control_command
from .panel import inspect_command as inspect_command
from .registry import tasks
from .result import signal_name
from .stamps import wanted

#: ``{node name: answer}``, as Celery's ``inspect()`` gives.
ByNode = dict[str, Any]

#: Seconds for which a question outlives who asked it: until then its answers are kept.
AFTERLIFE: Final = 5.0


class Control:
    """Tells workers what to do. Celery's ``app.control``.

    Methods send one command to the workers named in ``destination`` (a list of node names; default: all that run), and
    return ``None`` at once; with ``reply=True`` a list of ``{node name: reply}``, as soon as all of them have answered,
    after ``timeout`` seconds at the latest. Other keywords are those of :meth:`broadcast`.

    A command is sent at once, on a connection of its own: it is no part of the caller's transaction, except on SQLite.
    Methods raise :class:`~django_tasks.exceptions.OperationalError` when the database cannot be reached.
    """

    def inspect(
        self,
        destination: Sequence[str] | None = None,
        timeout: float = 1.0,
        callback: Callable[[dict[str, Any]], object] | None = None,
        *,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> Inspect:
        """Return an object whose methods ask workers about themselves."""
        return Inspect(destination, timeout, callback, limit=limit, pattern=pattern, matcher=matcher, control=self)

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        *,
        reply: bool = False,
        timeout: float = 1.0,
        limit: int | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
        expires: float | None = None,
        connection: Any = None,
        channel: Any = None,
        **extra_arguments: Any,
    ) -> list[ByNode] | None:
        """Send a command to workers; with ``reply``, return ``[{node name: reply}, …]``.

        It goes to those that run now and are named in ``destination`` or match ``pattern`` (``matcher``: ``glob``, the
        default, or ``pcre``); one that starts later does not obey. Waiting ends when each of them has answered, after
        ``limit`` replies, or after ``timeout`` seconds; ``callback`` is called with each ``{node name: reply}``. A
        failed command answers ``{"error": "…"}``. A worker that did not see it within ``expires`` seconds (default:
        ``CONTROL_QUEUE_TTL``) never obeys it. A beat obeys only a ``ping`` that is meant for it, by ``destination`` or
        ``pattern``. ``connection`` and ``channel`` are Celery's and can only be ``None``.
        Further keywords are arguments of the command.

        Raises ``TypeError`` or ``ValueError`` for what cannot be sent, and on SQLite
        :class:`~django_tasks.exceptions.WouldBlockForever` for replies that are wanted inside of a transaction.
        """
        if connection is not None or channel is not None:
            raise ValueError("connection and channel are no business of the caller here: leave them out")
        text = _as_json(command, {**(arguments or {}), **extra_arguments})
        chosen = _chooser(destination, pattern, matcher)
        _check_wait(timeout, limit, expires)
        lifetime = max(settings.CONTROL_QUEUE_TTL if expires is None else expires, timeout + AFTERLIFE * reply)
        with get_broker().line() as line:
            nodes = [node for node in line.nodes() if chosen(node)]
            if command == "ping" and (destination is not None or pattern is not None):
                nodes += [node for node in line.beats() if chosen(node)]
            if not nodes:
                return [] if reply else None
            command_id = line.send(
                command,
                text,
                destination=None if destination is None and pattern is None else {node.name for node in nodes},
                wants_replies=reply,
                lifetime=lifetime,
            )
            return _collect(line, command_id, nodes, timeout, limit, callback) if reply else None

    # Tasks

    def revoke(
        self,
        task_id: str | UUID | Iterable[str],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str = "SIGTERM",
        *,
        reply: bool = False,
        **options: Any,
    ) -> list[ByNode] | None:
        """Cancel tasks by id or ids: what waits never runs, what runs is asked to stop; ``terminate`` ends it.

        That a task is revoked, or to be ended, stands in its row, in the caller's transaction, whether a worker runs or
        not; workers are told once the transaction commits. ``destination`` only says who answers, and who
        ends it. Celery keeps it in the memory of the workers.
        """
        ids = [str(task_id)] if isinstance(task_id, str | UUID) else [str(each) for each in task_id]
        what = ("revoke", {"task_id": ids}, partial(client.revoke, ids))
        return self._revoke(*what, destination, terminate, signal, reply=reply, **options)

    def terminate(
        self,
        task_id: str | UUID | Iterable[str],
        destination: Sequence[str] | None = None,
        signal: str = "SIGTERM",
        **options: Any,
    ) -> list[ByNode] | None:
        """Cancel tasks, and end those that run: :meth:`revoke` with ``terminate=True``."""
        return self.revoke(task_id, destination, terminate=True, signal=signal, **options)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any] | Sequence[str],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str = "SIGTERM",
        *,
        reply: bool = False,
        **options: Any,
    ) -> list[ByNode] | None:
        """Cancel what carries one of these stamps, ``{name: value or values}`` or ``["name=value"]``, as :meth:`revoke`
        does.

        It is about what is there: a task that is sent later is none of it, which is not so in Celery. Values are
        compared as text. Raises ``ValueError`` for headers of another form.
        """
        stamps = wanted(headers)
        told = {"headers": stamps, "stored": True}
        what = ("revoke_by_stamped_headers", told, partial(client.revoke_where, stamps=stamps))
        return self._revoke(*what, destination, terminate, signal, reply=reply, **options)

    def _revoke(
        self,
        command: str,
        arguments: Mapping[str, Any],
        store: Callable[..., object],
        destination: Sequence[str] | None,
        terminate: bool,
        signal: str,
        *,
        reply: bool,
        **options: Any,
    ) -> list[ByNode] | None:
        """Store that tasks are revoked, in the caller's transaction, and tell workers once they can see it."""
        signal = signal_name(signal)
        outside = connections[get_broker().alias]
        if reply and outside.in_atomic_block:
            raise WouldBlockForever(
                f"{command}(reply=True) inside of a transaction would wait for what workers see only after it. "
                "Revoke without reply, or outside of it."
            )
        store(terminate=signal if terminate else None)
        if not terminate and not reply:
            return None
        told = {**arguments, "terminate": terminate, "signal": signal}
        tell = partial(self.broadcast, command, told, destination, reply=reply, **options)
        if outside.in_atomic_block:
            transaction.on_commit(tell, using=outside.alias)
            return None
        return tell()

    def purge(self) -> int:
        """Delete everything that waits in all queues, without a trace; return how many tasks. What runs goes on."""
        return get_broker().purge(Queues())

    discard_all = purge

    def rate_limit(
        self, task_name: str, rate_limit: float | str | None, destination: Sequence[str] | None = None, **options: Any
    ) -> list[ByNode] | None:
        """Let so many of a task start in a time: ``"10/s"``, ``"100/m"``, ``"5/h"``, a number per second; 0: any.

        It holds for all workers together and lasts, which is not so in Celery; ``destination`` only says who answers.
        If this process knows the task, the limit is stored in the caller's transaction, whether a worker runs or not;
        else by workers that know it. Raises ``TypeError`` or ``ValueError`` for what is no rate.
        """
        from .limits import change  # which needs models, and commands may be declared before there are any

        stored = task_name in tasks
        if stored:
            change("task", task_name, rate=rate_limit)
        arguments = {"task_name": task_name, "rate_limit": rate_limit, "stored": stored}
        return self.broadcast("rate_limit", arguments, destination, **options)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Sequence[str] | None = None,
        **options: Any,
    ) -> list[ByNode] | None:
        """Give a task other time limits in these workers, in seconds, until they end; ``None`` is no limit."""
        arguments = {"task_name": task_name, "soft": soft, "hard": hard}
        return self.broadcast("time_limit", arguments, destination, **options)

    # Workers

    def ping(self, destination: Sequence[str] | None = None, timeout: float = 1.0, **options: Any) -> list[ByNode]:
        """Ask which workers are there: ``[{node name: {"ok": "pong"}}, …]``; those of the beats that are named, too."""
        return self.broadcast("ping", {}, destination, **{**options, "reply": True, "timeout": timeout}) or []

    def shutdown(
        self, destination: Sequence[str] | None = None, *, cold: bool = False, **options: Any
    ) -> list[ByNode] | None:
        """Stop workers as SIGTERM does: running tasks are finished, the rest goes back.

        ``cold``: as SIGQUIT does: they are killed with all that they have started, and go back, too. Workers with
        ``--pool solo`` cannot do that. They answer that they stop, which Celery's do not. Raises ``TypeError`` for
        another ``cold`` than ``True`` and ``False``.
        """
        if not isinstance(cold, bool):
            raise TypeError(f"cold must be True or False, not {cold!r}")
        # A worker of an earlier release knows only the one without.
        return self.broadcast("shutdown", {"cold": True} if cold else {}, destination, **options)

    def quiet(self, destination: Sequence[str] | None = None, **options: Any) -> list[ByNode] | None:
        """Have workers take nothing new; what runs goes on."""
        return self.broadcast("quiet", {}, destination, **options)

    def resume(self, destination: Sequence[str] | None = None, **options: Any) -> list[ByNode] | None:
        """Have workers take tasks again after :meth:`quiet`."""
        return self.broadcast("resume", {}, destination, **options)

    def pool_grow(self, n: int = 1, destination: Sequence[str] | None = None, **options: Any) -> list[ByNode] | None:
        """Have ``n`` more processes in each worker."""
        return self.broadcast("pool_grow", {"n": n}, destination, **options)

    def pool_shrink(self, n: int = 1, destination: Sequence[str] | None = None, **options: Any) -> list[ByNode] | None:
        """Have ``n`` processes less in each worker."""
        return self.broadcast("pool_shrink", {"n": n}, destination, **options)

    def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,
        reloader: Any = None,
        destination: Sequence[str] | None = None,
        **options: Any,
    ) -> list[ByNode] | None:
        """Replace the processes of workers, each after its task. ``modules`` and ``reload`` are refused: new code needs
        a new worker."""
        if modules or reload or reloader:
            raise NotImplementedError(
                "pool_restart(modules=…, reload=…, reloader=…): processes are forked from one that has the code loaded "
                "already. Start the worker anew, or use runworker --autoreload."
            )
        return self.broadcast("pool_restart", {}, destination, **options)

    def autoscale(
        self, max: int, min: int = 1, destination: Sequence[str] | None = None, **options: Any
    ) -> list[ByNode] | None:
        """Let workers have between ``min`` and ``max`` processes, as their work demands."""
        return self.broadcast("autoscale", {"max": max, "min": min}, destination, **options)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        **further: Any,
    ) -> list[ByNode] | None:
        """Have workers consume another queue. There are no exchanges: ``exchange`` and ``routing_key`` may only be the
        queue's own name, ``exchange_type`` ``"direct"`` and ``options`` nothing. Raises ``ValueError`` for others."""
        given = {"exchange": exchange, "exchange_type": exchange_type, "routing_key": routing_key, "options": options}
        for name, value in given.items():
            if value not in (None, "", {}, "direct" if name == "exchange_type" else queue):
                raise ValueError(
                    f"add_consumer({name}={value!r}): there are no exchanges here, only queues; leave it out"
                )
        return self.broadcast("add_consumer", {"queue": queue}, destination, **further)

    def cancel_consumer(self, queue: str, destination: Sequence[str] | None = None, **options: Any) -> Any:
        """Have workers take nothing from a queue any more."""
        return self.broadcast("cancel_consumer", {"queue": queue}, destination, **options)

    def heartbeat(self, destination: Sequence[str] | None = None, **options: Any) -> list[ByNode] | None:
        """Have workers renew their lease now."""
        return self.broadcast("heartbeat", {}, destination, **options)

    def enable_events(self, *args: Any, **options: Any) -> None:
        """Refused: there are no event messages; what they tell stands in the tables."""
        raise NotImplementedError(_NO_EVENTS.format("enable_events"))

    def disable_events(self, *args: Any, **options: Any) -> None:
        """Refused, as :meth:`enable_events`."""
        raise NotImplementedError(_NO_EVENTS.format("disable_events"))


_NO_EVENTS: Final = (
    "{}(): there are no event messages to switch on or off. Every task and its state is a row (models Task, TaskResult "
    "and Worker), and the task_… signals tell of each in the worker."
)


class Inspect:
    """Asks workers about themselves. Celery's ``app.control.inspect()``.

    Each method returns ``{node name: answer}``, or ``None`` if nobody answered; the answers have Celery's shapes.
    Arguments are those of :meth:`Control.broadcast`.
    """

    def __init__(
        self,
        destination: Sequence[str] | None = None,
        timeout: float = 1.0,
        callback: Callable[[dict[str, Any]], object] | None = None,
        *,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
        control: Control | None = None,
    ) -> None:
        self._control = control or Control()
        self._options: dict[str, Any] = {
            "destination": destination,
            "timeout": timeout,
            "callback": callback,
            "limit": limit,
            "pattern": pattern,
            "matcher": matcher,
        }

    def ask(self, command: str, **arguments: Any) -> ByNode | None:
        """Ask by the name of any command, such as one of your own.

        Warns with :class:`~django_tasks.exceptions.DuplicateNodenameWarning` if several workers have one name.
        """
        # Nobody is there any more for an answer that comes later.
        replies = self._control.broadcast(command, arguments, reply=True, expires=0, **self._options)
        return _by_name(replies or ()) or None

    def active(self, safe: bool | None = None) -> ByNode | None:
        """Tell what runs: a list of tasks for each worker. ``safe`` is Celery's, and means nothing here."""
        return self.ask("active")

    def scheduled(self, safe: bool | None = None) -> ByNode | None:
        """Tell what waits for its ETA or its next attempt: lists of ``{"eta", "priority", "request"}``.

        Such tasks belong to no worker here; each is told by the worker that runs longest among those that consume its
        queue. At most the next thousand for each worker.
        """
        return self.ask("scheduled")

    def reserved(self, safe: bool | None = None) -> ByNode | None:
        """Tell what workers have taken and not begun: a list of tasks for each."""
        return self.ask("reserved")

    def registered(self, *taskinfoitems: str) -> ByNode | None:
        """Tell the names of the tasks that workers know, with these attributes: ``"shop.mail [rate_limit=5/m]"``."""
        return self.ask("registered", taskinfoitems=list(taskinfoitems))

    registered_tasks = registered

    def stats(self) -> ByNode | None:
        """Tell numbers and facts of each worker."""
        return self.ask("stats")

    def stacks(self) -> ByNode | None:
        """Tell as a text, ``{"ok": "…"}``, what the threads of each worker's processes do right now, and coroutines.

        A worker takes up to a second if a task lets nothing else run: a ``timeout`` of 2 waits for it.
        """
        return self.ask("stacks")

    def ping(self, destination: Sequence[str] | None = None) -> ByNode | None:
        """Ask which workers are there: ``{node name: {"ok": "pong"}}``; those of the beats that are named, too."""
        if destination is None:
            return self.ask("ping")
        return Inspect(**{**self._options, "destination": destination}, control=self._control).ask("ping")

    def report(self) -> ByNode | None:
        """Tell versions and settings as a text: ``{"ok": "…"}``."""
        return self.ask("report")

    def conf(self, with_defaults: bool = False) -> ByNode | None:
        """Tell the settings in ``DJANGO_TASKS``, secrets hidden; ``with_defaults``: also those that nobody set."""
        return self.ask("conf", with_defaults=with_defaults)

    def query_task(self, *ids: str | Iterable[str]) -> ByNode | None:
        """Tell what workers know of these tasks: ``{id: [state, task]}``, the state being ``active``, ``reserved`` or
        ``scheduled``."""
        given = [each for one in ids for each in ([one] if isinstance(one, str) else one)]
        return self.ask("query_task", ids=[str(each) for each in given])

    def active_queues(self) -> ByNode | None:
        """Tell which queues workers consume. One that consumes all tells of those in which something waits."""
        return self.ask("active_queues")

    def revoked(self) -> ByNode | None:
        """Tell the ids of revoked tasks: what is asked to stop, and the last thousand that ended so."""
        return self.ask("revoked")

    def clock(self) -> ByNode | None:
        """Tell ``{"clock": n}``; here the number of the command itself, which grows as Celery's logical clock does."""
        return self.ask("clock")

    def hello(self, from_node: str, revoked: Any = None) -> ByNode | None:
        """Greet as workers of Celery's greet each other: ``{"clock": n, "revoked": […]}``."""
        return self.ask("hello", from_node=from_node)


def nodes() -> list[str]:
    """Return the node names of the workers that are online, by their leases; nobody is asked."""
    with get_broker().line() as line:
        return [node.name for node in line.nodes()]


def beats() -> list[str]:
    """Return the node names of the beats that gave a sign of life of late; nobody is asked."""
    with get_broker().line() as line:
        return [node.name for node in line.beats()]


#: Celery's ``app.control``.
control: Final = Control()
inspect = control.inspect
broadcast = control.broadcast
revoke = control.revoke
terminate = control.terminate
revoke_by_stamped_headers = control.revoke_by_stamped_headers
purge = control.purge
discard_all = control.discard_all
rate_limit = control.rate_limit
time_limit = control.time_limit
ping = control.ping
shutdown = control.shutdown
pool_grow = control.pool_grow
pool_shrink = control.pool_shrink
pool_restart = control.pool_restart
autoscale = control.autoscale
quiet = control.quiet
resume = control.resume
add_consumer = control.add_consumer
cancel_consumer = control.cancel_consumer
heartbeat = control.heartbeat
enable_events = control.enable_events
disable_events = control.disable_events


# Inside --------------------------------------------------------------------------------------------------------------


def _collect(
    line: Line,
    command: int,
    nodes: Sequence[Node],
    timeout: float,
    limit: int | None,
    callback: Callable[[dict[str, Any]], object] | None,
) -> list[ByNode]:
    end = time.monotonic() + timeout
    missing = {node.id for node in nodes}
    known: set[int] = set()
    found: list[ByNode] = []
    while True:
        left = end - time.monotonic()
        for answer in line.replies(command, known):
            known.add(answer.node)
            found.append({answer.name: json.loads(answer.body)})
            if callback is not None:
                callback(found[-1])
            if limit is not None and len(found) >= limit:
                return found
        if missing <= known or left <= 0:
            return found
        line.wait(left)


def _by_name(replies: Iterable[ByNode]) -> ByNode:
    found: ByNode = {}
    twice: set[str] = set()
    for reply in replies:
        twice |= found.keys() & reply.keys()
        found |= reply
    if twice:
        warnings.warn(
            f"Several workers are called {', '.join(sorted(twice))}: only one answer of each name is told. Give each "
            "worker a name of its own, runworker --hostname NAME (%h is the host, %p the process id).",
            DuplicateNodenameWarning,
            stacklevel=4,
        )
    return found


def _chooser(destination: Any, pattern: str | None, matcher: str | None) -> Callable[[Node], bool]:
    if destination is not None and not isinstance(destination, list | tuple | set | frozenset):
        raise ValueError(f"destination must be a list of node names, not {destination!r}")
    if matcher not in (None, "glob", "pcre"):
        raise ValueError(f"matcher={matcher!r}: allowed are 'glob' and 'pcre'")
    if pattern is None:
        return lambda node: destination is None or node.name in destination
    if matcher == "pcre":
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"pattern={pattern!r} is no regular expression: {error}") from error
        return lambda node: (destination is None or node.name in destination) and bool(expression.match(node.name))
    return lambda node: (destination is None or node.name in destination) and fnmatchcase(node.name, pattern)


def _as_json(command: Any, arguments: Mapping[str, Any]) -> str:
    if not isinstance(command, str) or not 0 < len(command) <= 255:
        raise ValueError(f"A command is a name of 1 to 255 characters, not {command!r}")
    try:
        return json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"The arguments of {command!r} are no JSON: {error}") from error


def _check_wait(timeout: Any, limit: Any, expires: Any) -> None:
    for name, value in (("timeout", timeout), ("expires", 0 if expires is None else expires)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a number of seconds from 0, not {value!r}")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"limit must be a whole number from 1, or None, not {limit!r}")
