"""Sending a canvas: all of it at once, as rows and edges; and putting one in the place of a running task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import client, ids
from ..backends import get_broker
from ..backends.message import CHORD, Edge, Message, Replacement
from ..conf import settings
from ..exceptions import ImproperlyConfigured
from ..request import Context
from ..result import AsyncResult, GroupResult, ResultSet
from .inline import run, run_plan
from .plan import Ends, Node, Plan, prepared
from .primitives import _chain, _chord, group
from .signatures import Signature, as_list, checked


class Sender:
    """How canvases are sent and run."""

    def send(self, sig: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """Send it and return the result's handle."""
        return send(sig, args, kwargs, options)

    def run(self, sig: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """Run it here and return its result."""
        return run(sig, args, kwargs, options)


Signature.engine = Sender()


def send(sig: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Store a canvas in the caller's transaction and return the handle of its result; ``None`` for an empty chain.

    One whose ids are known already, because it was frozen and sent before, is not stored again.
    """
    options = {key: value for key, value in options.items() if value is not None}
    if settings.TASK_ALWAYS_EAGER:
        return run(sig, args, kwargs, options)
    whole, result = prepared(sig, options)
    if result is None:
        return result
    chord = options.pop("chord", None) or whole.options.get("chord")
    _check_chord(chord)
    plan, end = Plan.of(whole, args, kwargs, options)
    if not plan.nodes:
        return result
    if any(client.exists(one) for one in _first_id(sig, options)):
        return result
    send_plan(plan, result, options, None if chord is None else (chord, end))
    return _unwrapped(sig, result)


def send_plan(plan: Plan, result: Any, options: Mapping[str, Any], joining: tuple[str, Ends] | None = None) -> None:
    """Store what is planned in the caller's transaction, and let the handles of ``result`` know what became of it.

    ``joining``: the body of a chord that waits for these ends, too.
    """
    if joining is not None:
        plan.lead_to(*joining)
    messages, edges = plan.messages(), plan.edges()
    retry, policy = options.get("retry"), options.get("retry_policy")
    if joining is not None:
        _add_to_chord(*joining, messages, edges)
    elif edges:
        _require_workflows()
        client.publish_workflow(messages, edges, retry=retry, policy=policy)
    elif messages:
        client.publish(messages, retry=retry, policy=policy)
    _tell(plan.nodes, messages)
    _follow(result, plan.nodes, messages)


def dispatch(plan: Plan, result: Any, options: Mapping[str, Any]) -> Any:
    """Send what is planned, or run it here if tasks run eagerly; return its result."""
    if settings.TASK_ALWAYS_EAGER:
        return run_plan(plan, result, settings.TASK_EAGER_PROPAGATES)
    send_plan(plan, result, options)
    return result


def replacement(sig: Signature, request: Context, kept: Mapping[str, Any]) -> Replacement:
    """Return what takes the place of the task that runs under ``request``; ``kept`` is what its own options say.

    The last task gets its id: so whoever waits for it waits for that one.
    """
    _require_workflows()
    whole, _ = prepared(sig, {"task_id": request.id})
    plan, _ = Plan.of(whole, (), {}, {})
    key = ids.key_of(str(request.id))
    place = kept.get("node") or {}
    last = next(one for one in plan.nodes if one.key == key)
    last.parent = request.parent_id
    last.group = (kept["group"][0], kept["group"][1]) if "group" in kept else None
    last.inherited = {name: place[name] for name in ("out", "links", "chord") if name in place}
    messages = plan.messages()
    own = messages[plan.nodes.index(last)]
    return Replacement(own, [one for one in messages if one is not own], plan.edges())


def _first_id(sig: Signature, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield one of the ids that the caller chose, if there is any: all tasks of a canvas are stored together."""
    if isinstance(sig, group | _chord):
        members = sig.tasks if isinstance(sig, group) else sig.header_group().tasks
        found = next((each for one in members for each in _first_id(one, {})), None)
        if found is None and isinstance(sig, _chord):
            found = next(_first_id(sig.body, {}), None)
    elif isinstance(sig, _chain):
        found = next((each for one in sig.tasks for each in _first_id(one, {})), None) or sig.options.get("task_id")
    else:
        found = sig.options.get("task_id")
    found = found or options.get("task_id")
    if found:
        yield str(found)


def _unwrapped(sig: Signature, result: Any) -> Any:
    """A group of one chain that ends in a group gives the result of that one, as in Celery."""
    if isinstance(sig, group) and sig.is_merged and len(result) == 1 and isinstance(result[0], GroupResult):
        return result[0]
    return result


def _add_to_chord(chord: str, end: Ends, messages: Sequence[Message], edges: Sequence[Edge]) -> None:
    _require_workflows()
    joining = [Edge(one, chord, CHORD) for one in end.nodes]
    if not get_broker().extend_chord(chord, messages, [*edges, *joining], end.value):
        raise ImproperlyConfigured(
            f"The chord's body {chord} does not wait any more: add to a chord while one of its tasks runs"
        )


def _check_chord(chord: Any) -> None:
    if chord is not None and not isinstance(chord, str):
        raise TypeError(f"chord={chord!r}: to send a body after other tasks, write chord(header)(body)")


def _require_workflows() -> None:
    broker = get_broker()
    if not broker.supports_workflows:
        raise ImproperlyConfigured(
            f"{type(broker).__name__} carries no workflows: tasks that wait for others need the database broker"
        )


def _tell(nodes: Sequence[Node], messages: Sequence[Message]) -> None:
    for node, message in zip(nodes, messages, strict=True):
        if node.task_id and not message.conflict:
            client.tell_sent(message, node.args, node.kwargs)


def _follow(result: Any, nodes: Sequence[Node], messages: Sequence[Message]) -> None:
    """Tell the handles what only sending has shown: which results are dropped, and which calls were there already."""
    told: dict[str, tuple[bool, str]] = {}
    for node, message in zip(nodes, messages, strict=True):
        dropped = not node.has_successors and client.drops_result(node.options, node.task)
        if dropped or message.conflict:
            told[node.task_id] = dropped, message.custom_id or message.id
    if not told:
        return
    for one in _handles(result):
        if one.id in told:
            one.ignored, one.id = told[one.id]


def _handles(result: Any) -> Iterator[AsyncResult[Any]]:
    while result is not None:
        if isinstance(result, ResultSet):
            for one in result.results:
                yield from _handles(one)
        else:
            yield result
        result = getattr(result, "parent", None)


def linked(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> Signature:
    """Return a call that is linked to others as a signature."""
    own = {key: value for key, value in options.items() if value is not None}
    for key in ("link", "link_error"):
        if key in own:
            name = getattr(task, "name", task)
            own[key] = [
                checked(one, f"{key} of {name} must be a signature, as task.s() returns it, not {one!r}")
                for one in as_list(own[key])
            ]
    return Signature(task, args, kwargs, own)
