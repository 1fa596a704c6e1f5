"""From a canvas to rows: each task a node, each "after" an edge, and in each node from where its input comes.

What a node takes in is a *value*: the id of the node whose result it is, or a list of values. So a message never grows
with what lies before or behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from .. import client, ids
from ..backends.message import AFTER, ANY, CHORD, JOIN, JOIN_TASK, Edge, Message
from ..conf import settings
from ..context import current_request
from ..exceptions import ImproperlyConfigured
from ..moments import due_of, expiry_of
from ..options import LINKING, check_call
from ..place import flat, outcomes_of
from .batches import BATCH_TASK, batch
from .primitives import Canvas, _chain, _chord, group
from .signatures import Signature, as_list, checked, maybe_signature

#: Options that say where a call stands in a workflow, and are not those of the call itself.
POSITION = LINKING | {"task_id", "root_id", "parent_id"}
#: Sends a canvas that was linked as an errback.
SEND_TASK = "django_tasks.send"

Value = Any


class Ends(NamedTuple):
    """What a part of a canvas leads to."""

    value: Value
    #: The nodes after which it is done.
    nodes: tuple[str, ...]
    #: How what follows depends on them.
    kind: str = AFTER
    #: Which of them counts as the parent of what follows.
    parent: str | None = None


@dataclass(slots=True)
class Node:
    """One task of a workflow."""

    #: The id by which its caller knows it.
    task_id: str
    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: dict[str, Any]
    task: Any = None
    value: Value = None
    takes_value: bool = False
    before: list[tuple[str, str]] = field(default_factory=list)
    group: tuple[str, int] | None = None
    chord: str | None = None
    errbacks: list[Signature] = field(default_factory=list)
    #: Errbacks that are called only if it is not run because of what came before it.
    fallbacks: list[Signature] = field(default_factory=list)
    parent: str | None = None
    has_successors: bool = False
    #: Which of the successors are linked to it.
    links: list[str] = field(default_factory=list)
    #: Of one that takes another one's place: what that one's options said of its place.
    inherited: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The id of its row."""
        return ids.key_of(self.task_id)

    @property
    def is_linked(self) -> bool:
        """Is anything to be done but running it?"""
        return bool(self.before or self.errbacks or self.fallbacks or self.has_successors or self.inherited)


class Plan:
    """Canvases whose ids are fixed, as nodes in an order in which they could run."""

    def __init__(self, root_id: str | None = None, parent_id: str | None = None) -> None:
        self.nodes: list[Node] = []
        self._by_key: dict[str, Node] = {}
        self._priorities: dict[str, int] = {}
        self._errbacks: dict[int, dict[str, Any]] = {}
        request = current_request.get()
        inside = request is not None and not request.called_directly
        self._root = root_id or ((request.root_id or request.id) if request is not None and inside else None)
        self._parent = parent_id

    @classmethod
    def of(
        cls, sig: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[Plan, Ends]:
        """Return the plan of one canvas, and what it leads to."""
        root, parent = (options.get(name) or sig.options.get(name) for name in ("root_id", "parent_id"))
        plan = cls(root, parent)
        return plan, plan.add(sig, None, args, kwargs, options)

    # Walking

    def add(
        self,
        sig: Any,
        prev: Ends | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] = MappingProxyType({}),
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> Ends:
        """Add a canvas behind what ``prev`` leads to."""
        return self._walk(sig, prev, args, kwargs, dict(options))

    def whatever(self, prev: Ends) -> Ends:
        """Return the same ends for what runs whatever becomes of them, and is told."""
        return prev._replace(value=outcomes_of(prev.value), kind=ANY)

    def lead_to(self, body: str, end: Ends) -> None:
        """Let the body of a chord that is stored already wait for these ends, too."""
        for key in end.nodes:
            self._by_key[key].has_successors = True
            self._by_key[key].chord = body

    def _walk(
        self, sig: Any, prev: Ends | None, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]
    ) -> Ends:
        sig = checked(sig, f"A canvas is made of signatures, as task.s() returns them; {sig!r} is none")
        if isinstance(sig, _chain):
            return self._walk_chain(sig, prev, args, kwargs, options)
        if isinstance(sig, batch):
            return self._walk_batch(sig, prev, args, kwargs, options)
        if isinstance(sig, group):
            return self._walk_group(sig, prev, args, kwargs, options)
        if isinstance(sig, _chord):
            return self._walk_chord(sig, prev, args, kwargs, options)
        return self._walk_task(sig, prev, args, kwargs, options)

    def _walk_task(
        self, sig: Signature, prev: Ends | None, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]
    ) -> Ends:
        args, kwargs, merged = sig._merge(args, kwargs, options)
        own = {key: value for key, value in merged.items() if key not in POSITION and value is not None}
        task = sig._task()
        node = Node(
            task_id=str(merged.get("task_id") or ids.new_id()),
            name=sig.task,
            args=args,
            kwargs=kwargs,
            options=own,
            task=task,
            errbacks=[maybe_signature(one) for one in as_list(merged.get("link_error"))],
        )
        if merged.get("group_id"):
            node.group = merged["group_id"], merged.get("group_index") or 0
        self._put(node, prev, takes_value=not sig.immutable)
        end = Ends(node.key, (node.key,), parent=node.task_id)
        for callback in as_list(merged.get("link")):
            linked = maybe_signature(callback).clone()
            linked.freeze()
            first = len(self.nodes)
            self._walk(linked, end, (), {}, {})
            node.links += [one.key for one in self.nodes[first:] if (node.key, AFTER) in one.before]
        following = merged.get("chain")
        if following:
            rest = _chain([maybe_signature(one) for one in reversed(following)])
            rest.freeze()
            return self._walk(rest, end, (), {}, {})
        return end

    def _walk_chain(
        self, sig: _chain, prev: Ends | None, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]
    ) -> Ends:
        merged = {**sig.options, **options}
        steps = sig.steps()
        link, errbacks = as_list(merged.pop("link", None)), as_list(merged.pop("link_error", None))
        if link:
            steps[-1].extend_list_option("link", link)
        for step in steps:
            for errback in errbacks:
                step.link_error(maybe_signature(errback))
        first = {key: value for key, value in merged.items() if key not in POSITION}
        if sig.immutable:
            args = ()
        end = prev
        for position, step in enumerate(steps):
            end = self._walk(step, end, *((args, kwargs, first) if position == 0 else ((), {}, {})))
        return cast(Ends, end)

    def _walk_group(
        self, sig: group, prev: Ends | None, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]
    ) -> Ends:
        merged = {key: value for key, value in {**sig.options, **options}.items() if key not in POSITION}
        for key in ("link", "link_error"):
            if sig.options.get(key):
                merged[key] = sig.options[key]
        members = sig.members()
        prev = self._joined(prev, members)
        ends = [self._walk(one, prev, args, kwargs, dict(merged)) for one in members]
        nodes = tuple(node for end in ends for node in end.nodes)
        return Ends([end.value for end in ends], nodes, CHORD, ends[-1].parent if ends else None)

    def _walk_batch(
        self, sig: batch, prev: Ends | None, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]
    ) -> Ends:
        prev = self._joined(prev, sig.members())
        end = self._walk_group(sig, prev, args, kwargs, options)
        if prev is not None and prev.kind != ANY:
            prev = prev._replace(kind=AFTER)  # if that fails, no callback is called
        body, errback = sig.callback("on_success"), sig.callback("on_failure")
        if body is not None or errback is not None:
            first = len(self.nodes)
            self._call_back(body or Signature(BATCH_TASK, immutable=True), end, prev)
            if errback is not None:
                self.nodes[first].fallbacks.append(errback)
        if (callback := sig.callback("on_complete")) is not None:
            self._call_back(callback, self.whatever(end) if end.nodes else end, prev)
        return end if end.nodes or prev is None else prev._replace(value=[])

    def _call_back(self, callback: Signature, end: Ends, prev: Ends | None) -> None:
        """Add a callback of a batch: after the ends of its tasks, but not if what comes before them fails."""
        if not end.nodes:
            self._walk(callback, prev and prev._replace(value=[]), () if prev else ([],), {}, {})
            return
        first, ends = len(self.nodes), set(end.nodes)
        self._walk(callback, end, (), {}, {})
        if prev is not None:
            self._depend_on(prev, [one for one in self.nodes[first:] if any(key in ends for key, _ in one.before)])

    def _depend_on(self, prev: Ends, nodes: Sequence[Node]) -> None:
        """When what comes before a part of the workflow fails, nothing of it runs: let what comes after that part's
        first tasks know, too."""
        for one in nodes:
            one.before = [*((key, prev.kind) for key in prev.nodes), *one.before]

    def _walk_chord(
        self, sig: _chord, prev: Ends | None, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]
    ) -> Ends:
        merged = {**sig.options, **options}
        body = maybe_signature(sig.body)
        _link(body, as_list(merged.pop("link", None)), as_list(merged.pop("link_error", None)))
        own = {key: value for key, value in merged.items() if key not in POSITION}
        body.options.update({key: value for key, value in own.items() if key not in ("countdown", "eta")})
        header = sig.header_group()
        members = header.members()
        prev = self._joined(prev, members)
        if sig.immutable:
            args = ()
        given = {**sig.kwargs.get("kwargs", {}), **kwargs}
        given.pop("body", None)
        if not members:
            if isinstance(header, batch):
                self._walk(header, prev, args, given, own)
            return (
                self._walk(body, None, ([],), {}, {})
                if prev is None
                else self._walk(body, prev._replace(value=[]), (), {}, {})
            )
        end = self._walk(header, prev, args, given, own)
        before = len(self.nodes)
        result = self._walk(body, end, (), {}, {})
        first = self.nodes[before]
        if prev is not None:
            self._depend_on(prev, [first])
        for node in end.nodes:
            self._by_key[node].chord = first.key
        return result

    # Nodes

    def _put(self, node: Node, prev: Ends | None, *, takes_value: bool) -> None:
        if prev is not None:
            node.value = prev.value
            node.takes_value = takes_value
            node.before = [(key, prev.kind) for key in prev.nodes]
            node.parent = prev.parent
            for key in prev.nodes:
                self._by_key[key].has_successors = True
        if node.key in self._by_key:
            raise ImproperlyConfigured(f"Two tasks of a canvas have the same id {node.task_id}")
        self.nodes.append(node)
        self._by_key[node.key] = node

    def _joined(self, prev: Ends | None, members: Sequence[Any]) -> Ends | None:
        """Put one node between many and many: edges are then as many as both, not as each with each."""
        if prev is None or not members or (prev.kind != CHORD and len(prev.nodes) < 2):
            return prev
        join = Node(ids.new_id(), JOIN_TASK, (), {}, {})
        self._put(join, prev, takes_value=False)
        return Ends(join.key, (join.key,), JOIN, prev.parent)

    # As rows

    def messages(self) -> list[Message]:
        """Return the message of each node, in order. Raises as :func:`~django_tasks.client.build` does."""
        return [self._message(node) for node in self.nodes]

    def edges(self) -> list[Edge]:
        """Return the edges."""
        return [Edge(before, node.key, kind) for node in self.nodes for before, kind in node.before]

    def _message(self, node: Node) -> Message:
        options = {**node.options, "task_id": node.task_id}
        args, kwargs = node.args, node.kwargs
        if node.task is not None and not node.takes_value:
            args, kwargs = node.task._checked(args, kwargs)
        if root := self.root_of(node):
            options["root_id"] = root
        if parent := self.parent_of(node):
            options["parent_id"] = parent
        if settings.TASK_INHERIT_PARENT_PRIORITY and node.before:
            options["priority"] = self._priorities[node.before[0][0]]
        if node.name == JOIN_TASK:
            message = client.build(node.name, (), {}, options, place=self._place(node))
        else:
            check_call(options, node.name)
            message = client.prepare(node.name, args, kwargs, options, node.task, place=self._place(node))
        self._priorities[message.id] = message.priority
        if node.before:
            message.waiting = True
        if message.unique is not None and node.is_linked:
            raise ImproperlyConfigured(
                f"{node.name} is unique: another call may take its place, so it can have no neighbours in a workflow. "
                "Send it with unique=False."
            )
        return message

    def root_of(self, node: Node) -> str | None:
        """Return the id of the first task of all, ``None`` for a call that stands alone."""
        return self._root or (self.nodes[0].task_id if len(self.nodes) > 1 else None)

    def parent_of(self, node: Node) -> str | None:
        """Return the id of the task that it follows, or that sends it as far as the call says so."""
        return node.parent or self._parent

    def _place(self, node: Node) -> dict[str, Any]:
        """Return what the node's own options say of its place."""
        kept: dict[str, Any] = {}
        if node.group is not None:
            kept["group"] = node.group
        if not node.is_linked:
            return kept
        place: dict[str, Any] = {}
        if node.before:
            place["in"] = node.value
            place["before"] = _told(node)
            place["takes"] = node.takes_value
            place |= _delays(node)
        if node.has_successors:
            place["out"] = True
        if node.links:
            place["links"] = node.links
        if node.chord:
            place["chord"] = node.chord
        for name, errbacks in (("errbacks", node.errbacks), ("fallbacks", node.fallbacks)):
            if errbacks:
                place[name] = [self._errback(one) for one in errbacks]
        kept["node"] = place | node.inherited
        return kept

    def _errback(self, sig: Signature) -> dict[str, Any]:
        """Return the message of an errback, to be stored when its node fails."""
        known = self._errbacks.get(id(sig))
        if known is None:
            known = self._errbacks[id(sig)] = errback_record(sig)
        return known


def prepared(sig: Signature, options: dict[str, Any]) -> tuple[Signature, Any]:
    """Return a copy whose ids are fixed, and its result, ``None`` for an empty chain; takes the id out of the
    options."""
    whole = sig.clone()
    if isinstance(whole, _chain) and not whole.steps():
        return whole, None
    place = {"group_id": options.get("group_id"), "group_index": options.get("group_index")}
    own = options.pop("task_id", None)
    if isinstance(whole, _chord):
        asked = own or whole.options.get("task_id")
        header = whole.tasks.options.get("task_id") if isinstance(whole.tasks, group) else None
        return whole, whole.freeze(asked if asked != header else None, **place)
    if isinstance(whole, Canvas):
        return whole, whole.freeze(own or whole.options.get("task_id"), **place)
    if own is not None:
        whole.options["task_id"] = own
    return whole, whole.freeze(**place)


def errback_record(sig: Signature) -> dict[str, Any]:
    """Return what is to be stored of an errback: a message without id."""
    if isinstance(sig, Canvas) or sig.options.get("link") or sig.options.get("link_error"):
        sig = Signature(SEND_TASK, (dict(sig),))
    options = {key: value for key, value in sig.options.items() if key not in POSITION and value is not None}
    check_call(options, sig.task)
    message = client.build(sig.task, sig.args, sig.kwargs, options, sig._task())
    if message.unique is not None:
        raise ImproperlyConfigured(f"{sig.task} is unique, so it cannot be an errback. Set unique=False on it.")
    record = {
        "name": message.name,
        "queue": message.queue,
        "priority": message.priority,
        "body": message.body,
        "encoding": message.encoding,
        "options": message.options,
        "delay": message.delay,
        "expires_in": message.expires_in,
        "at_most_once": message.at_most_once,
        "limit_key": message.limit_key,
        "immutable": sig.immutable,
    }
    return {key: value for key, value in record.items() if value}


def _delays(node: Node) -> dict[str, float]:
    """Return the delays of a node that waits, in seconds: they begin when it has waited long enough."""
    delays = {}
    countdown = due_of(node.options.get("countdown"), None)[0]
    if countdown:
        delays["countdown"] = countdown
    expires = node.options.get("expires")
    if expires is None:
        expires = getattr(node.task, "expires", None)
    seconds = expiry_of(expires)[0] if expires is not None else None
    if seconds is not None:
        delays["expires_in"] = seconds
    return delays


def _told(node: Node) -> Any:
    """Return how the node depends on others: one kind for all in its value, and what else comes before."""
    inputs = set() if node.value is None else set(flat(node.value))
    kinds = {kind for key, kind in node.before if key in inputs}
    others = [[key, kind] for key, kind in node.before if key not in inputs]
    return [*sorted(kinds), *others]


def _link(body: Any, callbacks: Sequence[Any], errbacks: Sequence[Any]) -> None:
    """Link a chord's callbacks and errbacks to its body: errbacks to each member of a group."""
    for callback in callbacks:
        body.link(maybe_signature(callback))
    for errback in map(maybe_signature, errbacks):
        if isinstance(body, group):
            for one in body.members():
                (one.body if isinstance(one, _chord) else one).link_error(errback.clone())
        else:
            body.append_to_list_option("link_error", errback)
