"""A task's place in a workflow, as its options tell: what it takes in, what its errbacks are, what follows it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .backends import get_results, stores
from .backends.message import Outcome, Replacement
from .backends.relations import Input, Row
from .backends.results import Record
from .conf import settings
from .exceptions import Ignore, UnknownResult
from .request import Context
from .serialization import exception_from_data, loads, loads_error
from .states import SUCCESS


class Replaced(Ignore):
    """Raised in a task by ``self.replace()``: others take its place."""

    def __init__(self, replacement: Replacement) -> None:
        super().__init__("Replaced by new task")
        self.replacement = replacement


def received(
    place: Mapping[str, Any],
    task: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    stored: Mapping[str, Outcome] | None = None,
) -> Sequence[Any]:
    """Return the positional arguments of a task with what it takes in before its own. What is ``stored`` by this
    process need not be read.

    Raises :class:`~django_tasks.exceptions.UnknownResult` when the ledger does not have that any more.
    """
    if "failed" in place:
        if place.get("immutable"):
            return args
        return [*of_failure(task, args, kwargs, place["failed"]), *args]
    return [take(place["in"], stored), *args] if place.get("takes") else args


# What others returned


def take(value: Any, stored: Mapping[str, Outcome] | None = None) -> Any:
    """Return what a value stands for: what the task of this id returned, a list of such, or what became of some."""
    inputs: dict[str, Input] = {}
    missing = set(flat(value))
    if stored and not isinstance(value, dict):  # what is told of outcomes are the ids that callers know
        mine = (stored[key] for key in missing & stored.keys())
        inputs = {one.id: Input(one.state, one.result, one.result_encoding, one.id) for one in mine}
        missing -= inputs.keys()
    while missing:
        found = get_results().inputs(sorted(missing))
        if lost := missing - found.keys():
            raise _lost(min(lost))
        inputs |= found
        through = {key for one in found.values() if one.stands_for is not None for key in flat(one.stands_for)}
        missing = through - inputs.keys()
    return _loaded(value, inputs)


def outcomes_of(value: Any) -> dict[str, Any]:
    """Return the value that stands for what became of the tasks in ``value``, whether they succeeded or not."""
    return {"outcomes": value}


def waited_for(place: Mapping[str, Any]) -> dict[str, str]:
    """Return what a task of a workflow waited for: ids, and how it depends on each."""
    kinds = dict(one for one in place.get("before", ()) if isinstance(one, list))
    own = next((one for one in place.get("before", ()) if isinstance(one, str)), None)
    if own is not None:
        kinds |= dict.fromkeys(flat(place["in"]), own)
    return kinds


def flat(value: Any) -> Iterator[str]:
    """Yield the ids in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from flat(value["outcomes"])
    else:
        for one in value:
            yield from flat(one)


def _loaded(value: Any, inputs: Mapping[str, Input]) -> Any:
    if isinstance(value, dict):
        return _told(value["outcomes"], inputs)
    if not isinstance(value, str):
        return [_loaded(one, inputs) for one in value]
    one = inputs[value]
    if one.state != SUCCESS:
        raise _lost(one.task_id)
    return _loaded(one.stands_for, inputs) if one.stands_for is not None else _result(one)


def _told(value: Any, inputs: Mapping[str, Input]) -> Any:
    """Return what became of tasks as plain data: ``id``, ``state``, and ``result`` or ``error``."""
    if not isinstance(value, str):
        return [_told(one, inputs) for one in value]
    one = inputs[value]
    if one.stands_for is not None and one.state == SUCCESS:
        return _told(one.stands_for, inputs)
    told = {"id": one.task_id, "state": one.state}
    return {**told, "result": _result(one)} if one.state == SUCCESS else {**told, "error": one.exception}


def _result(one: Input) -> Any:
    if one.result is None:
        return None
    return loads(*stores.fetch(one.result, one.encoding), settings.ACCEPT_CONTENT)


def _lost(task_id: str) -> UnknownResult:
    return UnknownResult(f"This takes in what {task_id} returned, which is not in the ledger any more")


# Errbacks


def of_failure(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], failed: str) -> list[Any]:
    """Return what an errback is told: ``(request, exc, traceback)`` if it takes so much, else the id alone."""
    if not takes_request(task, args, kwargs):
        return [failed]
    record = get_results().read_ended(failed)
    if record is None:
        raise UnknownResult(f"This is told why {failed} failed, which is not in the ledger any more")
    data = loads_error(record.result or "null", record.result_encoding, settings.ACCEPT_CONTENT)
    error = exception_from_data(data) if isinstance(data, dict) else UnknownResult(f"{failed} kept no exception")
    return [request_of_record(record), error, record.traceback]


def takes_request(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Does an errback take more than an id, beside the arguments that it was linked with?

    As in Celery, one that is bound takes the id.
    """
    function = getattr(task, "__wrapped__", None)
    if function is None or getattr(task, "_bound", False):
        return False
    spec = inspect.getfullargspec(inspect.unwrap(function))
    left = [name for name in spec.args[: len(spec.args)] if name not in kwargs]
    return bool(spec.varargs) or len(left) - len(args) > 1


def request_of_record(record: Record) -> Context:
    """Return the request of a task that is done."""
    args, kwargs = loads(record.body, record.encoding, settings.ACCEPT_CONTENT)
    options = json.loads(record.options) if record.options else {}
    return Context(
        id=record.task_id,
        task=record.name,
        args=args,
        kwargs=kwargs,
        retries=record.retries,
        attempt=record.attempt,
        called_directly=False,
        hostname=record.worker,
        root_id=record.root_id or record.task_id,
        parent_id=record.parent_id,
        correlation_id=record.task_id,
        headers=options.get("headers"),
        delivery_info={"exchange": "", "routing_key": record.queue, "queue": record.queue},
        **fields(options, record.task_id),
    )


# The request


def fields(options: Mapping[str, Any], task_id: str) -> dict[str, Any]:
    """Return what a request tells of a place and of stamps."""
    told: dict[str, Any] = {}
    if "group" in options:
        told["group"], told["group_index"] = options["group"]
    if "stamps" in options:
        told["stamps"], told["stamped_headers"] = options["stamps"], list(options["stamps"])
    if "replaced_task_nesting" in options:
        told["replaced_task_nesting"] = options["replaced_task_nesting"]
    place = options.get("node")
    if place:
        told["chord"] = place.get("chord")
        if place.get("errbacks"):
            told["errbacks"] = [as_signature(one) for one in place["errbacks"]]
        if place.get("out"):
            told["_feeds"] = True
            links = place.get("links", ())
            told["callbacks"] = Following(task_id, links, chain=False) if links else None
            told["chain"] = Following(task_id, links, chain=True)
    return told


def as_signature(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored call as the dict of a signature."""
    args, kwargs = loads(record["body"], record.get("encoding", ""), settings.ACCEPT_CONTENT)
    options = {key: record[key] for key in ("queue", "priority", "task_id") if record.get(key)}
    kind = {"subtask_type": None, "immutable": bool(record.get("immutable"))}
    return {"task": record["name"], "args": args, "kwargs": kwargs, "options": options, **kind}


class Following(Sequence[dict[str, Any]]):
    """What follows a running task in its workflow, as dicts of signatures; looked up when first asked for.

    Of a chain, the next one is the last, as in Celery.
    """

    def __init__(self, task_id: str, links: Iterable[str], *, chain: bool) -> None:
        self._task_id = task_id
        self._links = frozenset(links)
        self._chain = chain
        self._found: list[dict[str, Any]] | None = None

    def _rows(self) -> list[dict[str, Any]]:
        if self._found is None:
            if self._chain:
                rows, seen = [], {self._task_id}
                at = self._task_id
                while (step := self._next(at)) is not None and step.key not in seen:
                    rows.append(step)
                    seen.add(step.key)
                    at = step.key
                rows.reverse()
            else:
                rows = [one for one in get_results().following(self._task_id) if one.key in self._links]
            self._found = [as_signature(one.record) for one in rows]
        return self._found

    def _next(self, key: str) -> Row | None:
        after = [one for one in get_results().following(key) if one.key not in self._links]
        return after[0] if len(after) == 1 else None

    def __getitem__(self, index: Any) -> Any:
        return self._rows()[index]

    def __len__(self) -> int:
        return len(self._rows())

    def __repr__(self) -> str:
        return repr(self._rows())
