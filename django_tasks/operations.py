"""What people do to tasks: run them again, cancel them, empty queues, clear the ledger.

The admin and ``manage.py tasks`` call these verbs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Final

from django.db import connections, transaction
from django.db.models import Count, F
from django.utils import timezone
from django.utils.translation import gettext as _

from . import client, dashboard, display, ids, states
from .access import Narrow
from .backends import get_broker
from .backends.base import Queues
from .backends.message import JOIN_TASK, Message
from .backends.message import Edge as EdgeOf
from .conf import settings
from .models import Edge, Task, TaskLog, TaskResult, TaskTag
from .querysets import DatabaseNow, TaskQuerySet, TaskResultQuerySet
from .redaction import REDACTED
from .registry import tasks
from .replica import reads_from
from .revival import Revival, before, moved, responsible, taken_along, was_not_run
from .routing import validate_priority, validate_queue

#: In the options of a copy: the id of the task that it runs again.
RETRY_OF: Final = "retry_of"
#: Rows per transaction; their bodies are in memory at the same time.
BATCH: Final = 100
#: Tasks of a workflow that :func:`rerun_workflow` sends; their bodies are in memory at the same time.
WHOLE: Final = 5_000
#: Databases round their clocks, SQLite's to milliseconds: so much earlier may what came later seem to be.
TICK: Final = timedelta(milliseconds=5)


@dataclass(slots=True)
class Retried:
    """What :func:`retry` did, by ids as they were given."""

    #: The original's id to the id of its copy.
    copies: dict[str, str] = field(default_factory=dict)
    #: Left alone: a copy of it waits or runs already.
    queued: list[str] = field(default_factory=list)
    #: Left alone: it is not done itself.
    unfinished: list[str] = field(default_factory=list)
    #: Left alone: its sensitive arguments are kept no more, and no others were given.
    redacted: list[str] = field(default_factory=list)
    #: Left alone: what would run again with it is not for this person to see.
    hidden: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Revoked:
    """What :func:`revoke` did, by ids as they were given."""

    #: Will not run any more.
    cancelled: list[str] = field(default_factory=list)
    #: Runs, and was asked to stop.
    asked: list[str] = field(default_factory=list)
    #: Was done before.
    finished: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Changed:
    """What :func:`reschedule`, :func:`duplicate` or :func:`delete` did, by ids as they were given."""

    #: Of a duplicate, with the id of the new task; else empty.
    changed: dict[str, str] = field(default_factory=dict)
    #: Left alone, and why: ``running``, ``blocked``, ``unroutable``, ``due``, ``finished``, ``needed``, ``redacted`` or
    #: ``unknown``.
    left: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edit:
    """Arguments for a copy in place of the stored ones, as they will be stored, and as they are."""

    encoding: str
    body: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a finished task: where it is now."""

    id: str
    state: str
    finished: bool


def retry(task_ids: Iterable[str], edits: Mapping[str, Edit] | None = None, *, narrow: Narrow | None = None) -> Retried:
    """Run finished tasks again: send copies with the very same stored arguments, headers, queue and priority, due now.

    Each copy has a new id, and the original's root and parent; its options name the original (:data:`RETRY_OF`). An
    expiry is counted anew. A task of which a copy is not done yet is left alone, and so is one that somebody else runs
    again in this very moment. What was not run because of it, in a workflow, is copied with it and waits for its copy;
    of such a task, what failed before it is run again. ``edits`` gives copies other arguments, by the originals' ids as
    they are given here; a task that was not run cannot have any, and one whose sensitive arguments are kept no more
    needs them. ``narrow`` leaves those rows that a person may see: a task with which others would run again is left
    alone. Copies are stored in batches of :data:`BATCH`, each in a transaction of its own unless the caller has one.

    Raises :class:`~django_tasks.exceptions.OperationalError` when the database cannot be reached.
    """
    done = Retried()
    began = dashboard.database_now() - TICK
    given = iter(dict.fromkeys(task_ids))
    while batch := {ids.key_of(one): one for one in islice(given, BATCH)}:
        with transaction.atomic(using=settings.DATABASE):
            _retry(batch, began, done, edits or {}, narrow)
    return done


def _retry(
    batch: Mapping[str, str], began: datetime, done: Retried, edits: Mapping[str, Edit], narrow: Narrow | None
) -> None:
    rows = _ledger().filter(pk__in=list(batch))
    # Whoever else runs these again waits here until our copies can be seen.
    if connections[settings.DATABASE].features.has_select_for_update:
        found = {str(row.pk): row for row in rows.order_by("pk").select_for_update()}
    else:
        rows.update(state=F("state"))  # SQLite: from here on nobody else writes
        found = {str(row.pk): row for row in rows}
    queued = _originals_of_copies(began, found)
    waiting = {str(pk) for pk in _to_do().filter(pk__in=list(batch)).values_list("pk", flat=True)}
    chosen = {}
    for key, one in batch.items():
        if key in queued:
            done.queued.append(one)
        elif key in found and found[key].encoding == REDACTED and one not in edits:
            done.redacted.append(one)
        elif (row := found.get(key)) is not None:
            chosen[key] = row
        else:
            (done.unfinished if key in waiting else done.unknown).append(one)
    if narrow is not None:
        hidden = _with_hidden(chosen, narrow)
        done.hidden += [batch[key] for key in chosen if key in hidden]
        chosen = {key: row for key, row in chosen.items() if key not in hidden}
    again = responsible(chosen.values())
    taken = _originals_of_copies(began, again)
    again = {key: row for key, row in again.items() if key not in taken}
    if not again:
        done.queued += [batch[key] for key in chosen]
        return
    edited = {key: edits[one] for key, one in batch.items() if one in edits}
    revival = Revival(again, partial(_copy, edits=edited))
    messages = list(revival.messages.values())
    if any("node" in row.option_values for row in again.values()):
        client.publish_workflow(messages, revival.edges)
        revival.close()
    else:
        client.publish(messages)
    TaskTag.objects.using(settings.DATABASE).bulk_create(
        TaskTag(tag=_mark(key), task_id=message.id) for key, message in revival.messages.items()
    )
    for key, one in batch.items():
        if key in revival.messages:
            done.copies[one] = revival.messages[key].id


def failed(*, name: str | None = None, since: datetime | None = None) -> list[str]:
    """Return the ids of the failures that nobody has run again yet, oldest first; of one task, since a moment if given.

    A copy that failed is itself a failure.
    """
    chosen = _ledger().failed()
    if name is not None:
        chosen = chosen.filter(name=name)
    if since is not None:
        chosen = chosen.filter(finished_at__gte=since)
    keys = [str(pk) for pk in chosen.order_by("finished_at").values_list("pk", flat=True)]
    copies = _marked(keys)
    ended = iter(copies)
    again: set[str] = set()
    while some := list(islice(ended, BATCH)):
        again |= {copies[str(pk)] for pk in _ledger().filter(pk__in=some).values_list("pk", flat=True)}
    return [key for key in keys if key not in again]


def copies_of(result: TaskResult) -> Iterator[Copy]:
    """Yield the copies of a finished task: those that are not done yet, then those that are, oldest first."""
    copies = list(_marked([str(result.pk)]))
    if copies:
        for row in _to_do().filter(pk__in=copies).order_by("pk").only("state"):
            yield Copy(str(row.pk), row.state, finished=False)
        for line in _ledger().filter(pk__in=copies).order_by("finished_at").only("state"):
            yield Copy(str(line.pk), line.state, finished=True)


def retried_as(task_id: str) -> list[str]:
    """Return the ids of the copies of a finished task, as :func:`copies_of` finds them; none for one that is not
    done."""
    row = _ledger().filter(pk=ids.key_of(task_id)).first()
    return [copy.id for copy in copies_of(row)] if row is not None else []


def revoke(task_ids: Iterable[str], *, terminate: str | None = None) -> Revoked:
    """Cancel tasks, durably: what waits ends as REVOKED now, what runs is asked to stop, or ended within about a second
    by the signal that ``terminate`` names.

    Raises :class:`~django_tasks.exceptions.OperationalError` when the database cannot be reached.
    """
    done = Revoked()
    given = iter(dict.fromkeys(task_ids))
    while batch := {ids.key_of(one): one for one in islice(given, BATCH)}:
        keys = list(batch)
        there = {str(pk) for pk in _to_do().filter(pk__in=keys).values_list("pk", flat=True)}
        if there:
            client.revoke([key for key in keys if key in there], terminate=terminate)
        asked = {str(pk) for pk in _to_do().filter(pk__in=keys).values_list("pk", flat=True)}
        ended = {str(pk): state for pk, state in _ledger().filter(pk__in=keys).values_list("pk", "state")}
        for key, one in batch.items():
            if key in asked:
                done.asked.append(one)
            elif key in there and ended.get(key, states.REVOKED) == states.REVOKED:
                done.cancelled.append(one)
            else:
                (done.finished if key in ended else done.unknown).append(one)
    return done


def reschedule(
    task_ids: Iterable[str],
    *,
    queue: str | None = None,
    priority: int | None = None,
    delay: float | None = None,
    eta: datetime | None = None,
) -> Changed:
    """Change in which queue, with which priority, or when tasks run that nobody runs yet: ``delay`` seconds from now,
    or at the aware moment ``eta``. A time cannot be given to what waits for other tasks, or for a worker that knows it.

    Raises ``ValueError`` for a queue or a priority that cannot be, or when there is nothing to change,
    :class:`~django_tasks.exceptions.OperationalError` when the broker cannot be reached.
    """
    if queue is not None:
        validate_queue(queue)
    if priority is not None:
        validate_priority(priority)
    if eta is not None and timezone.is_naive(eta):
        raise ValueError(f"eta is {eta!r}; allowed: an aware datetime")
    done = Changed()
    for batch in _batches(task_ids):
        changed = set(get_broker().reschedule(list(batch), queue=queue, priority=priority, delay=delay, eta=eta))
        done.changed |= {one: "" for key, one in batch.items() if key in changed}
        done.left |= _why_left({key: one for key, one in batch.items() if key not in changed})
    return done


def run_now(task_ids: Iterable[str]) -> Changed:
    """Make tasks due now that are due later: an ETA, or the next attempt. Raises as :func:`reschedule` does."""
    done = Changed()
    for batch in _batches(task_ids):
        later = _to_do().filter(pk__in=list(batch), due_at__gt=DatabaseNow())
        keys = {str(pk) for pk in later.values_list("pk", flat=True)}
        found = reschedule([one for key, one in batch.items() if key in keys], delay=0)
        rest = _why_left({key: one for key, one in batch.items() if key not in keys})
        done.changed |= found.changed
        done.left |= found.left | rest
    return done


def duplicate(task_ids: Iterable[str], edits: Mapping[str, Edit] | None = None) -> Changed:
    """Send the same calls once more, as new tasks that have nothing to do with the first ones; ``edits`` gives them
    other arguments, by the ids as they are given here.

    Arguments, headers, queue and priority are the stored ones; a place in a workflow is not taken over, so what takes
    in the results of other tasks is left alone (``blocked``), and so is what lacks its sensitive arguments
    (``redacted``).
    """
    done = Changed()
    for batch in _batches(task_ids):
        rows: list[Task | TaskResult] = [*_to_do().filter(pk__in=list(batch)), *_ledger().filter(pk__in=list(batch))]
        messages = {}
        for row in rows:
            edit = (edits or {}).get(batch[str(row.pk)])
            if (display.options_of(row).get("node") or {}).get("in"):
                done.left[batch[str(row.pk)]] = "blocked"
            elif row.encoding == REDACTED and edit is None:
                done.left[batch[str(row.pk)]] = "redacted"
            else:
                messages[str(row.pk)] = _alone(row, {str(row.pk): edit} if edit is not None else {})
        if messages:
            client.publish(list(messages.values()))
        done.changed |= {one: messages[key].id for key, one in batch.items() if key in messages}
        done.left |= {one: "unknown" for one in batch.values() if one not in done.changed and one not in done.left}
    return done


def delete(task_ids: Iterable[str]) -> Changed:
    """Delete results; what something that is not done takes in is left alone (``needed``)."""
    done = Changed()
    for batch in _batches(task_ids):
        with transaction.atomic(using=settings.DATABASE):
            there = {str(pk) for pk in _ledger().filter(pk__in=list(batch)).values_list("pk", flat=True)}
            edges = Edge.objects.using(settings.DATABASE).filter(before_id__in=there)
            needed = {str(pk) for pk in edges.values_list("before_id", flat=True)}
            gone = there - needed
            _ledger().filter(pk__in=gone).delete()
            TaskTag.objects.using(settings.DATABASE).filter(task_id__in=gone).delete()
            TaskLog.objects.using(settings.DATABASE).filter(task_id__in=gone).delete()
        for key, one in batch.items():
            if key in gone:
                done.changed[one] = ""
            else:
                done.left[one] = "needed" if key in needed else "unknown"
    return done


def waiting_in(queues: Sequence[str]) -> int:
    """Return how many tasks :func:`purge` would delete."""
    return _to_do().purgeable().filter(queue__in=_named(queues)).count()


def purge(queues: Sequence[str]) -> int:
    """Delete everything that waits in these queues to run, without a trace, and return how many; what runs goes on.

    Also what a limit holds back, or is set aside until a worker knows it; not what waits for other tasks, which belongs
    to its workflow.

    Raises ``ValueError`` when no queue is named, or one that cannot exist.
    """
    return get_broker().purge(Queues(tuple(_named(queues))))


def prune(final_states: Iterable[str] = (), older_than: timedelta | None = None) -> int:
    """Delete results of these final states (none: all) that are older than ``older_than``, else than ``RESULT_EXPIRES``
    allows; return how many."""
    chosen = sorted(final_states) or sorted(states.FINISHED)
    unknown = set(chosen) - states.FINISHED
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: allowed are {', '.join(sorted(states.FINISHED))}")
    lifetimes = {state: settings.RESULT_EXPIRES[state] if older_than is None else older_than for state in chosen}
    return get_broker().prune(lifetimes)


# A whole workflow


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a workflow is."""

    #: The id that all its tasks have as their root.
    root_id: str
    #: How many of its tasks are in each state; those between many and many, which run nothing, are left out.
    states: dict[str, int]

    @property
    def total(self) -> int:
        """How many tasks it has, as far as they are known."""
        return sum(self.states.values())

    @property
    def finished(self) -> int:
        """How many are done, in whatever way."""
        return sum(count for state, count in self.states.items() if state in states.FINISHED)


def progress(root_id: str) -> Progress:
    """Return how far the workflow is whose tasks have this root, and what they sent; one query."""
    to_do, ledger = (
        rows.filter(root_id=ids.key_of(root_id))
        .exclude(name=JOIN_TASK)
        .order_by()
        .values_list("state")
        .annotate(count=Count("pk"))
        for rows in (_to_do(), _ledger())
    )
    counts: dict[str, int] = {}
    for state, count in to_do.union(ledger, all=True).order_by():
        counts[state] = counts.get(state, 0) + count
    return Progress(root_id, counts)


def revoke_workflow(root_id: str) -> Revoked:
    """Cancel all tasks of a workflow that are not done, as :func:`revoke` does."""
    waiting = _to_do().filter(root_id=ids.key_of(root_id)).order_by("-pk")  # what comes last ends first
    return revoke([str(pk) for pk in waiting.values_list("pk", flat=True)])


def retry_workflow(root_id: str) -> Retried:
    """Run the failed tasks of a workflow again, and with them what was not run because of them, as :func:`retry` does;
    what has been run again already is left alone."""
    rows = list(_ledger().filter(root_id=ids.key_of(root_id)).exclude(state=states.SUCCESS))
    everything = _ledger().filter(root_id=ids.key_of(root_id), options__contains=f'"{RETRY_OF}"').only("options")
    copied = {display.options_of(row).get(RETRY_OF) for row in everything}
    causes = [row for row in rows if not was_not_run(row) and str(row.pk) not in copied]
    return retry([str(row.pk) for row in causes])


def rerun_workflow(root_id: str) -> str:
    """Send a whole workflow again, all or nothing, with the very same stored arguments; return the id of the new root.

    What its tasks sent while they ran they send anew, and of a task that was run again there is one new task. Raises
    ``ValueError``, with the reason, when not all of it is done, when what is left of it is not all of it, when it
    changed while it ran, or when it has more than :data:`WHOLE` tasks.
    """
    root = ids.key_of(root_id)
    if _to_do().filter(root_id=root).exists():
        raise ValueError(_("it is not done"))
    rows = {str(row.pk): row for row in _ledger().filter(root_id=root).order_by("pk")[: WHOLE + 1]}
    if len(rows) > WHOLE:
        raise ValueError(_("it has more than %s tasks") % f"{WHOLE:,}")
    if root not in rows:
        raise ValueError(_("its first task is gone, or was sent alone: run that one again"))
    options = {key: display.options_of(row) for key, row in rows.items()}
    if any("replaced_task_nesting" in each for each in options.values()):
        raise ValueError(_("others took the place of one of its tasks while it ran"))

    def first(key: str) -> str:
        """Return the task that this one runs again, and that one, and so on."""
        while original := options.get(key, {}).get(RETRY_OF):
            key = original
        return key

    planned = {key: row for key, row in rows.items() if RETRY_OF not in options[key]}
    waits = {key: {first(one): kind for one, kind in before(row).items()} for key, row in planned.items()}
    chosen = _behind({key for key, row in planned.items() if not waits[key] and row.parent_id is None} | {root}, waits)
    followed = {one for others in waits.values() for one in others}
    if any((options[key].get("node") or {}).get("out") and key not in followed for key in chosen):
        raise ValueError(_("some of its tasks are gone, or their results were not kept"))
    if any(rows[key].encoding == REDACTED for key in chosen):
        raise ValueError(_("sensitive arguments of its tasks are kept no more"))
    new_ids = {key: ids.new_id() for key in chosen}
    new_ids |= {key: new_ids[start] for key in rows if (start := first(key)) in chosen}
    groups: dict[str, str] = {}
    messages = []
    for key in sorted(chosen):
        message = _copy(rows[key])
        told = moved(json.loads(message.options or "{}"), new_ids)
        if told.get("group"):
            group, index = told["group"]
            told["group"] = [groups.setdefault(group, ids.new_id()), index]
        kept = {name: value for name, value in told.items() if name not in (RETRY_OF, "root_id", "parent_id")}
        message.options = json.dumps(kept) if kept else None
        message.id, message.root_id = new_ids[key], new_ids[root]
        message.parent_id = new_ids.get(message.parent_id or "", message.parent_id)
        message.waiting = bool(waits[key])
        messages.append(message)
    edges = [EdgeOf(new_ids[one], new_ids[key], kind) for key in sorted(chosen) for one, kind in waits[key].items()]
    client.publish_workflow(messages, edges)
    return new_ids[root]


# Inside --------------------------------------------------------------------------------------------------------------


def _behind(begin: set[str], waits: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Return these and what waited for them, and so on. Raises ``ValueError`` if something waited for others, too, or
    for what is not there."""
    found, grown = set(begin), True
    while grown:
        more = {key for key, others in waits.items() if key not in found and others and found.issuperset(others)}
        found, grown = found | more, bool(more)
    left = [others.keys() for key, others in waits.items() if key not in found]
    if any(not found.isdisjoint(others) or not others <= waits.keys() for others in left):
        raise ValueError(_("some of its tasks are gone, or others joined it while it ran"))
    return found


def _batches(task_ids: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the ids in parts: keys of rows to the ids as they were given."""
    given = iter(dict.fromkeys(task_ids))
    while batch := {ids.key_of(one): one for one in islice(given, BATCH)}:
        yield batch


def _why_left(batch: Mapping[str, str]) -> dict[str, str]:
    """Return why these could not be given another time or place."""
    reasons = {states.STARTED: "running", states.WAITING: "blocked", states.UNROUTABLE: "unroutable"}
    found = {str(pk): state for pk, state in _to_do().filter(pk__in=list(batch)).values_list("pk", "state")}
    done = {str(pk) for pk in _ledger().filter(pk__in=list(batch)).values_list("pk", flat=True)}
    return {
        one: reasons.get(found[key], "due") if key in found else "finished" if key in done else "unknown"
        for key, one in batch.items()
    }


def _to_do() -> TaskQuerySet[Task]:
    return Task.objects.using(reads_from())


def _ledger() -> TaskResultQuerySet[TaskResult]:
    return TaskResult.objects.using(reads_from())


def _named(queues: Sequence[str]) -> list[str]:
    if not queues:
        raise ValueError("Name the queue")  # an empty list means all of them to a broker
    return [validate_queue(queue) for queue in queues]


def _mark(key: str) -> str:
    """Return the tag of the copies of a task, by which an index finds them."""
    return f"{RETRY_OF}:{key}"


def _marked(keys: Iterable[str]) -> dict[str, str]:
    """Return the ids of all copies of these tasks that there are, or were, each with its original's."""
    found: dict[str, str] = {}
    rest = iter(keys)
    while marks := [_mark(key) for key in islice(rest, BATCH)]:
        rows = TaskTag.objects.using(reads_from()).filter(tag__in=marks)
        found |= {str(copy): tag.removeprefix(_mark("")) for copy, tag in rows.values_list("task_id", "tag")}
    return found


def _with_hidden(rows: Mapping[str, TaskResult], narrow: Narrow) -> set[str]:
    """Return which of these would not run again alone, but with something that ``narrow`` takes away."""

    def hides(some: Iterable[TaskResult]) -> bool:
        results, waiting = taken_along(responsible(some))
        return any(
            chosen.exclude(pk__in=narrow(chosen).values("pk")).exists()
            for chosen in (_ledger().filter(pk__in=results), _to_do().filter(pk__in=waiting))
        )

    return {key for key, row in rows.items() if hides([row])} if hides(rows.values()) else set()


def _originals_of_copies(began: datetime, keys: Iterable[str]) -> set[str]:
    """Return which of these have a copy that is not done yet, or one that somebody sent, and that ended, since."""
    copies = _marked(keys)
    if not copies:
        return set()
    unfinished = _to_do().filter(pk__in=list(copies)).values_list("pk", flat=True)
    late = _ledger().filter(pk__in=list(copies), finished_at__gte=began).values_list("pk", flat=True)
    return {copies[str(pk)] for pk in (*unfinished, *late)}


def _alone(row: Task | TaskResult, edits: Mapping[str, Edit]) -> Message:
    """Return a message like the one that ``row`` was, without its place among others."""
    message = _copy(row, edits)
    left_out = (RETRY_OF, "node", "group", "replaced_task_nesting", "root_id", "parent_id")
    options = {key: value for key, value in json.loads(message.options or "{}").items() if key not in left_out}
    message.options = json.dumps(options) if options else None
    message.root_id = message.parent_id = None
    return message


def _copy(row: Task | TaskResult, edits: Mapping[str, Edit] | None = None) -> Message:
    """Return a message with the stored texts of ``row``: they are never decoded, so nothing can change in them; or with
    the arguments that ``edits`` has for it."""
    edit = (edits or {}).get(str(row.pk))
    left_out = ("eta", RETRY_OF) if edit is None else ("eta", RETRY_OF, "argsrepr", "kwargsrepr")
    options = {key: value for key, value in display.options_of(row).items() if key not in left_out}
    lifetime = row.expires_at - row.created_at if row.expires_at is not None else None
    if lifetime is not None and "expires" in options:
        options["expires"] = (timezone.now() + lifetime).isoformat()
    task = tasks.get(row.name)
    flow = getattr(task, "_flow", None)
    if edit is not None and flow is not None and flow.is_limited:
        options["limit_key"] = flow.limit_key(edit.args, edit.kwargs) or ""
    return Message(
        id=ids.new_id(),
        name=row.name,
        queue=row.queue,
        body=row.body if edit is None else edit.body,
        encoding=row.encoding if edit is None else edit.encoding,
        priority=row.priority,
        options=json.dumps({RETRY_OF: str(row.pk), **options}),
        expires_in=lifetime.total_seconds() if lifetime is not None else None,
        at_most_once=client.is_at_most_once(task, options.get("acks_late")),
        limit_key=options.get("limit_key", "") if flow is not None and flow.is_limited else None,
        tags=tuple(options.get("tags", ())),
        root_id=str(row.root_id) if row.root_id else None,
        parent_id=str(row.parent_id) if row.parent_id else None,
    )
