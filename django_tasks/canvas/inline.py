"""Running a canvas where it is made, one task after the other, with the same ends as on workers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from .. import client, states
from ..backends.fate import FAILED, NOT_RUN, OK, SKIPPED, Reason, fate
from ..backends.message import ANY, JOIN, JOIN_TASK
from ..conf import settings
from ..eager import run_eagerly
from ..exceptions import ChordError, NotRegistered, TaskRevokedError
from ..place import takes_request
from ..request import Context
from ..result import EagerResult, GroupResult, ResultSet
from .plan import Node, Plan, prepared
from .primitives import group
from .signatures import Signature

logger = logging.getLogger(__name__)


def run(sig: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Run a canvas here and return its result; ``None`` for an empty chain.

    With ``throw``, by default ``TASK_EAGER_PROPAGATES``, the first exception is raised.
    """
    given = {key: value for key, value in options.items() if value is not None}
    throw = given.pop("throw", settings.TASK_EAGER_PROPAGATES)
    for name in ("propagate", "chord"):
        given.pop(name, None)
    whole, result = prepared(sig, given)
    if result is None:
        return None
    plan, _ = Plan.of(whole, args, kwargs, given)
    made = run_plan(plan, result, throw)
    is_whole = isinstance(whole, group) and not whole.is_merged
    if isinstance(made, GroupResult) and len(made) == 1 and isinstance(made[0], GroupResult) and not is_whole:
        return made[0]
    return made


def run_plan(plan: Plan, result: Any, throw: bool) -> Any:
    """Run a plan here; return the tree of results with those in place of its handles."""
    return _as_eager(result, _Run(plan, throw).results())


class _Run:
    """One pass over the nodes of a plan."""

    def __init__(self, plan: Plan, throw: bool) -> None:
        self._plan = plan
        self._throw = throw
        self._results: dict[str, EagerResult[Any]] = {}
        self._outcomes: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def results(self) -> dict[str, EagerResult[Any]]:
        """Run all; return their results by id."""
        for node in self._plan.nodes:
            reasons = [
                Reason(before, kind, self._outcomes[before])
                for before, kind in node.before
                if self._outcomes[before] != OK and kind != ANY
            ]
            if reasons:
                self._do_without(node, reasons)
            elif node.name == JOIN_TASK:
                self._values[node.key] = self._take(node.value)
                self._outcomes[node.key] = OK
            else:
                self._run(node)
        return {one.id: one for one in self._results.values()}

    def _run(self, node: Node) -> None:
        if node.task is None:
            raise NotRegistered(node.name, ", so it cannot run eagerly")
        args = [self._take(node.value), *node.args] if node.takes_value else node.args
        args, kwargs = node.task._checked(args, node.kwargs)
        options = {**node.options, "task_id": node.task_id}
        for key, value in (("root_id", self._plan.root_of(node)), ("parent_id", self._plan.parent_of(node))):
            if value:
                options[key] = value
        place: dict[str, Any] = {"group": node.group} if node.group else {}
        told = {name: value for name, value in (("chord", node.chord), ("out", node.has_successors)) if value}
        if told:
            place["node"] = told
        message = client.prepare(node.name, args, kwargs, options, node.task, place=place)
        client.tell_sent(message, args, kwargs)
        result = run_eagerly(message, throw=False)
        self._results[node.key] = result
        if result.state == states.SUCCESS:
            self._values[node.key] = result.result
            self._outcomes[node.key] = OK
            return
        self._outcomes[node.key] = FAILED
        if result.state == states.FAILURE:
            self._call_errbacks(node, node.errbacks, result)
        if self._throw and isinstance(result.result, BaseException) and result.state in states.PROPAGATE_STATES:
            raise result.result

    def _do_without(self, node: Node, reasons: Sequence[Reason]) -> None:
        culprit, kind, outcome = fate(reasons)
        before = self._results[culprit]
        self._outcomes[node.key] = outcome
        error, state = before.result, before.state
        if state not in states.PROPAGATE_STATES or not isinstance(error, BaseException):
            error, state = TaskRevokedError(f"its predecessor {before.id} ended as {before.state}"), states.REVOKED
        if not (outcome == SKIPPED or kind == JOIN or node.name == JOIN_TASK):
            failure = ChordError(f"Dependency {before.id} raised {error!r}")
            failure.__cause__ = error
            error, state = failure, states.FAILURE
        why = f"{NOT_RUN}its predecessor {before.id} ended as {before.state}"
        result: EagerResult[Any] = EagerResult(node.task_id, error, state, why, node.name)
        self._results[node.key] = result
        if outcome != SKIPPED and (state == states.FAILURE or node.name == JOIN_TASK):
            self._call_errbacks(node, [*node.errbacks, *node.fallbacks], result)

    def _call_errbacks(self, node: Node, errbacks: Sequence[Signature], result: EagerResult[Any]) -> None:
        for errback in errbacks:
            task = errback._task()
            if task is not None and takes_request(task, errback.args, errback.kwargs):
                request = Context(id=node.task_id, task=node.name, args=node.args, kwargs=node.kwargs, is_eager=True)
                try:
                    errback(request, result.result, result.traceback)
                except Exception:
                    logger.exception("Errback %s of %s failed", errback.task, node.task_id)
            else:
                errback.apply((node.task_id,), parent_id=node.task_id, root_id=self._plan.root_of(node) or node.task_id)

    def _take(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._told(value["outcomes"])
        return self._values[value] if isinstance(value, str) else [self._take(one) for one in value]

    def _told(self, value: Any) -> Any:
        """Return what became of tasks, as a worker would tell it."""
        if not isinstance(value, str):
            return [self._told(one) for one in value]
        result = self._results[value]
        told = {"id": result.id, "state": result.state}
        if result.state == states.SUCCESS:
            return {**told, "result": result.result}
        error = result.result if result.state in states.PROPAGATE_STATES else None
        return {**told, "error": "" if error is None else f"{type(error).__name__}: {error}"[:255]}


def _as_eager(result: Any, found: Mapping[str, EagerResult[Any]]) -> Any:
    """Return a tree of results with those in place of its handles."""
    if result is None:
        return None
    if type(result) is not GroupResult and isinstance(result, ResultSet):
        result.results = [_as_eager(one, found) for one in result.results]
        return result
    if isinstance(result, GroupResult):
        members = [_as_eager(one, found) for one in result.results]
        return GroupResult(result.id, members, parent=_as_eager(result.parent, found))
    made = found[result.id]
    if result.parent is not None and made.parent is None:
        made.parent = _as_eager(result.parent, found)
    return made
