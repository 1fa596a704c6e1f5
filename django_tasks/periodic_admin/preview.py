"""What a periodic task would do, told before it does: the page shows it beside the form."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, NamedTuple, get_type_hints

from django.core.exceptions import ImproperlyConfigured
from django.utils import dateformat, timezone
from django.utils.translation import gettext as _

from .. import display, schedules, task_names, typed_json
from ..dashboard import database_now
from ..models import PeriodicTask
from ..periodic import planning
from ..periodic.changes import clock_changes
from ..periodic.rows import STORED_AS, json_of
from ..redaction import is_secret
from ..registry import tasks

__all__ = ["Plan", "Preview", "preview_of", "preview_of_row", "unchecked", "words_of"]

#: Runs that are shown.
PREVIEWED: Final = 10
#: Annotations to which arguments are held; those of pydantic are held by the task itself.
SIMPLE: Final = (str, int, float, bool)


class Preview(NamedTuple):
    """What a row would do."""

    words: str
    #: Of each run: by the clock of the schedule, of the reader, and UTC.
    runs: list[tuple[str, str, str]]
    warnings: list[str]
    #: What the task takes, and what it says of itself.
    signature: str
    doc: str


class Plan:
    """A row as it would be with another schedule, not planned yet."""

    schedule_key = ""
    next_run_at = None

    def __init__(self, row: PeriodicTask, timetable: schedules.BaseSchedule) -> None:
        self._row = row
        self.schedule = timetable

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)


def words_of(timetable: schedules.BaseSchedule) -> str:
    """Return when a schedule runs, in the reader's language."""
    for cls, _name, model in STORED_AS:
        if type(timetable) is cls:
            return _with_clock(model.for_schedule(timetable).human_readable, timetable)
    return str(timetable)


def preview_of(plan: Any, timetable: schedules.BaseSchedule, *, full: bool = True) -> Preview:
    """Return what would become of a row. ``full=False`` tells of arguments their types and sizes only."""
    now = database_now()
    zone, own = timetable.tz, timezone.get_current_timezone()
    runs = planning.preview(plan, now, PREVIEWED)
    shown = [(_clock(run, zone), _clock(run, own), _clock(run, UTC)) for run in runs]
    task = tasks.get(plan.task)
    warnings = list(clock_changes(timetable, now))
    if not runs and plan.enabled:
        warnings.append(_("It never runs again as it stands."))
    if not plan.enabled:
        warnings.append(_("It is switched off: no run is sent."))
    if task is None:
        return Preview(words_of(timetable), shown, [unchecked(plan.task), *warnings], "", "")
    warnings += _mismatches(task, plan.args, plan.kwargs, full)
    doc = (inspect.getdoc(task.run) or "").partition("\n")[0]
    return Preview(words_of(timetable), shown, warnings, f"{task.name}{_signature(task)}", doc)


def unchecked(name: str) -> str:
    """Return a sentence on why the arguments of a task are not checked here; empty if they are."""
    if name in tasks:
        return ""
    knowing = task_names.of_workers().workers.get(name)
    if knowing:
        text = _("Only workers know %(task)s (%(workers)s): whether the arguments fit is not checked here.")
        return text % {"task": name, "workers": task_names.shown(knowing)}
    text = _("No running worker says that it knows %s, nor does this site: what is sent waits until a worker knows it.")
    return text % name


def preview_of_row(row: PeriodicTask, *, full: bool = True) -> Preview | None:
    """Return what a row does; ``None`` if what stands there makes no schedule."""
    try:
        return preview_of(row, row.schedule, full=full)
    except (TypeError, ValueError, ImproperlyConfigured):
        return None


def _with_clock(words: str, timetable: schedules.BaseSchedule) -> str:
    return _("%s, by the clock") % words if getattr(timetable, "relative", False) else words


def _clock(run: datetime, zone: tzinfo) -> str:
    return dateformat.format(run.astimezone(zone), "D Y-m-d H:i:s")


class _Annotation:
    """Shows what stands in the code, without quotes."""

    def __init__(self, annotation: Any) -> None:
        self._text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)

    def __repr__(self) -> str:
        return self._text


def _signature(task: Any) -> inspect.Signature:
    """Return what a task takes and returns, to be shown."""
    empty = inspect.Parameter.empty
    taken = [
        each if each.annotation is empty else each.replace(annotation=_Annotation(each.annotation))
        for each in task._arguments.signature.parameters.values()
    ]
    returned = inspect.signature(task.run).return_annotation
    return inspect.Signature(taken, return_annotation=returned if returned is empty else _Annotation(returned))


def _mismatches(task: Any, args: str, kwargs: str, full: bool) -> Iterator[str]:
    """Yield a sentence for each argument that is not of the simple type that the function names."""
    try:
        given = [typed_json.untag(json_of("args", args, list)), typed_json.untag(json_of("kwargs", kwargs, dict))]
        values = task._arguments.signature.bind(*given[0], **given[1]).arguments
        hints = get_type_hints(task.run)
    except Exception:  # what cannot be read is told elsewhere, or no business of ours
        return
    for name, value in values.items():
        wanted = hints.get(name)
        if wanted in SIMPLE and not _fits(value, wanted):
            text = _("%(name)s is %(value)s; the function says %(type)s.")
            is_open = full and not is_secret(name) and name not in task.sensitive
            shown = json.dumps(value, default=str)[:100] if is_open else display.describe(value)
            yield text % {"name": name, "value": shown, "type": wanted.__name__}


def _fits(value: Any, wanted: type[Any]) -> bool:
    return type(value) is wanted or (wanted is float and type(value) is int)
