"""What people do to chosen tasks: each action once, by its name, for the admin, bulk operations and programs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from . import operations
from .access import Narrow
from .models import Task, TaskResult

#: A text, translated when it is shown.
Text = str | Promise

#: Why a task was left alone, in words.
REASONS: Final[Mapping[str, Text]] = {
    "running": gettext_lazy("it runs"),
    "blocked": gettext_lazy("it depends on other tasks of its workflow"),
    "unroutable": gettext_lazy("no running worker knows it"),
    "due": gettext_lazy("it is due already"),
    "finished": gettext_lazy("it is done already"),
    "unfinished": gettext_lazy("it is not done"),
    "queued": gettext_lazy("a copy of it is not done yet"),
    "redacted": gettext_lazy("its sensitive arguments were removed when it succeeded"),
    "hidden": gettext_lazy("it would run again with tasks that you may not see"),
    "needed": gettext_lazy("another task still needs its result"),
    "unknown": gettext_lazy("it is not there any more"),
}


#: What an action may ask for.
ASKS: Final = frozenset({"queue", "priority", "eta", "signal"})
_NAME: Final = re.compile(r"[a-z0-9_]{1,32}")


class Done(NamedTuple):
    """What an action did, by ids."""

    #: A sentence for the history of each task that it changed.
    said: dict[str, str]
    #: The key in :data:`REASONS` of each that it left alone, or why in other words.
    left: dict[str, str]


@dataclass(frozen=True)
class Action:
    """One thing that can be done to tasks, or to results."""

    name: str
    model: type[Task] | type[TaskResult]
    #: The codename of the permission that it needs, of this app unless it names another: ``shop.refund_order``.
    permission: str
    #: The button of one task; the entry in the list of actions; the answer to the question.
    label: Text
    of_many: Text
    answer: Text
    #: What it will do, for whoever has to say yes.
    consequence: Text
    #: Takes ids, and what it has to be told.
    run: Callable[..., Done]
    #: What it has to be told: ``queue``, ``priority``, ``eta`` (ISO 8601) or ``signal``.
    asks: tuple[str, ...] = ()
    deletes: bool = False
    #: Does it reach tasks beyond the chosen ones? Then ``run`` is told by ``narrow`` which the person may see.
    reaches: bool = False

    @property
    def needs(self) -> str:
        """The permission with its app."""
        return self.permission if "." in self.permission else f"django_tasks.{self.permission}"

    def do(self, ids: Sequence[str], given: Mapping[str, Any], narrow: Narrow | None) -> Done:
        """Do it to these; ``narrow`` leaves those rows that the person may see, and is ``None`` where all see all."""
        return self.run(ids, given, narrow=narrow) if self.reaches else self.run(ids, given)


def _retry(ids: Sequence[str], given: Mapping[str, Any], narrow: Narrow | None) -> Done:
    done = operations.retry(ids, narrow=narrow)
    reasons = ("queued", "unfinished", "redacted", "hidden", "unknown")
    left = {key: reason for reason in reasons for key in getattr(done, reason)}
    return Done({key: _("Run again as %s") % copy for key, copy in done.copies.items()}, left)


def _cancel(ids: Sequence[str], given: Mapping[str, Any]) -> Done:
    done = operations.revoke(ids, terminate=given.get("signal"))
    asked = _("To be ended by %s") % given["signal"] if given.get("signal") else _("Asked to stop")
    said = dict.fromkeys(done.cancelled, _("Cancelled")) | dict.fromkeys(done.asked, asked)
    return Done(said, dict.fromkeys(done.finished, "finished") | dict.fromkeys(done.unknown, "unknown"))


def _run_now(ids: Sequence[str], given: Mapping[str, Any]) -> Done:
    done = operations.run_now(ids)
    return Done(dict.fromkeys(done.changed, _("Made due now")), done.left)


def _postpone(ids: Sequence[str], given: Mapping[str, Any]) -> Done:
    done = operations.reschedule(ids, eta=datetime.fromisoformat(given["eta"]))
    return Done(dict.fromkeys(done.changed, _("Put off until %s") % given["eta"]), done.left)


def _move(ids: Sequence[str], given: Mapping[str, Any]) -> Done:
    queue, priority = given.get("queue") or None, given.get("priority")
    done = operations.reschedule(ids, queue=queue, priority=priority)
    parts = [_("Moved to the queue %s") % queue] if queue else []
    parts += [_("Given the priority %s") % priority] if priority is not None else []
    return Done(dict.fromkeys(done.changed, "; ".join(parts)), done.left)


def _duplicate(ids: Sequence[str], given: Mapping[str, Any]) -> Done:
    done = operations.duplicate(ids)
    return Done({key: _("Sent once more as %s") % copy for key, copy in done.changed.items()}, done.left)


def _delete(ids: Sequence[str], given: Mapping[str, Any]) -> Done:
    done = operations.delete(ids)
    return Done(dict.fromkeys(done.changed, _("Deleted")), done.left)


_DUPLICATING: Final = gettext_lazy(
    "The same call is sent once more, as a new task that has nothing to do with this one."
)

#: Those that come with us.
ACTIONS: Final[tuple[Action, ...]] = (
    Action(
        "run_now",
        Task,
        "reschedule_task",
        gettext_lazy("Run now"),
        gettext_lazy("Run selected tasks now"),
        gettext_lazy("Yes, run now"),
        gettext_lazy("What is due later, by an ETA or for its next attempt, is due at once."),
        _run_now,
    ),
    Action(
        "cancel",
        Task,
        "cancel_task",
        gettext_lazy("Cancel"),
        gettext_lazy("Cancel selected tasks"),
        gettext_lazy("Yes, cancel"),
        gettext_lazy("What waits will never run. What runs already is asked to stop, and may go on all the same."),
        _cancel,
    ),
    Action(
        "terminate",
        Task,
        "terminate_task",
        gettext_lazy("Cancel and terminate"),
        gettext_lazy("Cancel and terminate selected tasks"),
        gettext_lazy("Yes, terminate"),
        gettext_lazy("What waits will never run. What runs is ended by a signal within about a second, in the middle."),
        _cancel,
        asks=("signal",),
    ),
    Action(
        "move",
        Task,
        "reschedule_task",
        gettext_lazy("Change queue or priority"),
        gettext_lazy("Change queue or priority of selected tasks"),
        gettext_lazy("Change"),
        gettext_lazy("What waits is taken by the workers of the other queue, or earlier or later. What runs goes on."),
        _move,
        asks=("queue", "priority"),
    ),
    Action(
        "postpone",
        Task,
        "reschedule_task",
        gettext_lazy("Postpone"),
        gettext_lazy("Postpone selected tasks"),
        gettext_lazy("Postpone"),
        gettext_lazy("What waits does not start before this moment. What runs goes on."),
        _postpone,
        asks=("eta",),
    ),
    Action(
        "duplicate_task",
        Task,
        "enqueue_task",
        gettext_lazy("Duplicate"),
        gettext_lazy("Duplicate selected tasks"),
        gettext_lazy("Yes, send it again"),
        _DUPLICATING,
        _duplicate,
    ),
    Action(
        "retry",
        TaskResult,
        "retry_taskresult",
        gettext_lazy("Run again"),
        gettext_lazy("Run selected tasks again"),
        gettext_lazy("Yes, run again"),
        gettext_lazy(
            "Each is sent once more, as a new task with the same arguments: what it did before, it does again."
        ),
        _retry,
        reaches=True,
    ),
    Action(
        "duplicate",
        TaskResult,
        "enqueue_task",
        gettext_lazy("Duplicate"),
        gettext_lazy("Duplicate selected tasks"),
        gettext_lazy("Yes, send it again"),
        _DUPLICATING,
        _duplicate,
    ),
    Action(
        "delete",
        TaskResult,
        "delete_taskresult",
        gettext_lazy("Delete"),
        gettext_lazy("Delete selected results"),
        gettext_lazy("Yes, delete"),
        gettext_lazy("The results are gone for good, and with them what tells that these tasks ever ran."),
        _delete,
        deletes=True,
    ),
)
#: Every action by its name, in the order in which they are offered.
BY_NAME: Final[dict[str, Action]] = {action.name: action for action in ACTIONS}


def register_action(action: Action) -> Action:
    """Offer one more action wherever there are any: in the lists, on the pages of rows, and for all that match.

    Call it when Django is ready, in an ``AppConfig.ready()`` which workers run, too: they do what is done to all that
    match. Raises ``ValueError`` for a name that is taken, or could be no name, for another model, and for what nobody
    can be asked.
    """
    if not _NAME.fullmatch(action.name):
        raise ValueError(f"The action is called {action.name!r}; allowed: 1 to 32 of the characters a-z 0-9 _")
    if action.name in BY_NAME:
        raise ValueError(f"There is an action {action.name!r} already")
    if action.model not in (Task, TaskResult):
        raise ValueError(f"The action {action.name!r} is for {action.model!r}; allowed: Task, TaskResult")
    if unknown := set(action.asks) - ASKS:
        raise ValueError(
            f"The action {action.name!r} asks for {sorted(unknown)[0]!r}; allowed: {', '.join(sorted(ASKS))}"
        )
    BY_NAME[action.name] = action
    return action
