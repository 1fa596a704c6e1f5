"""``chain``, ``group`` and ``chord``, and what ``|`` makes of them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar, Self, cast

from .. import ids
from ..conf import settings
from ..result import GroupResult
from .signatures import Signature, as_list, checked, copied, maybe_signature, repr_call, signature, without_repeating
from .stamping import StampingVisitor, merged

__all__ = ["_chain", "_chord", "chain", "chord", "group"]


def _part(name: str, doc: str) -> Any:
    def get(self: Signature) -> Any:
        return self["kwargs"].get(name)

    def set_(self: Signature, value: Any) -> None:
        self["kwargs"][name] = value

    return property(get, set_, doc=doc)


def _as_signatures(given: Any, kind: str) -> Any:
    """Return a sequence of signatures for what may be any iterable, of dicts too; a list or tuple stays what it is.

    Raises ``TypeError`` for what is none.
    """
    if isinstance(given, list | tuple) and all(isinstance(one, Signature) for one in given):
        return given
    return (tuple if isinstance(given, tuple) else list)(_part_of(kind, one) for one in given)


def _part_of(kind: str, given: Any) -> Signature:
    return checked(given, f"A {kind} is made of signatures, as task.s() returns them; {given!r} is none")


def _is_iterable(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, Mapping | str | bytes)


def is_empty_group(value: Any) -> bool:
    """Is it a group without members?"""
    return isinstance(value, group) and value.is_merged and not value.tasks


class Canvas(Signature):
    """What is made of several signatures."""

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        return self.apply_async(partial_args, partial_kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Send it, all of it or nothing, and return the result's handle.

        Everything is stored in the caller's transaction; what has to wait for something else is there at once, too.
        Further arguments go to the tasks that come first.
        """
        return self.engine.send(self, tuple(args or ()), dict(kwargs or {}), options)

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run it here, one task after the other, and return its result."""
        return self.engine.run(self, tuple(args or ()), dict(kwargs or {}), options)

    @property
    def type(self) -> Any:
        raise TypeError(f"{self.task} is no task of its own")

    def _task(self) -> Any:
        return None


@Signature.register_type("chain")
class _chain(Canvas):
    tasks = _part("tasks", "Its steps.")

    def __init__(self, *tasks: Any, app: Any = None, **options: Any) -> None:
        steps = tasks[0] if len(tasks) == 1 and _is_iterable(tasks[0]) else tasks
        super().__init__(
            "django_tasks.chain", (), {"tasks": _as_signatures(steps, "chain")}, subtask_type="chain", **options
        )

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        steps = list(map(maybe_signature, d["kwargs"]["tasks"] or ()))
        return restored(_chain(steps, **d["options"]), d)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send it."""
        return self.apply_async(args, kwargs) if self.tasks else None

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **opts: Any
    ) -> Signature:
        other = super().clone(args, kwargs, **opts)
        other.kwargs["tasks"] = [one.clone() for one in other.kwargs["tasks"]]
        return other

    def unchain_tasks(self) -> list[Signature]:
        """Return copies of the steps, linked to what the chain is linked to: the last one to its callbacks, each one to
        its errbacks."""
        steps = [one.clone() for one in self.tasks]
        for callback in as_list(self.options.get("link")):
            steps[-1].link(callback)
        for errback in as_list(self.options.get("link_error")):
            for one in steps:
                one.link_error(errback)
        return steps

    def __or__(self, other: Any) -> Any:
        if is_empty_group(other):
            return self
        if isinstance(other, group):
            other = other.unrolled()
            if not isinstance(other, group):
                return self | other
            steps = self.unchain_tasks()
            if not steps:
                return other
            if isinstance(steps[-1], _chord):
                steps[-1].body = steps[-1].body | other
                return _chain(steps)
            return _chain([*steps, other])
        if isinstance(other, _chain):
            return reduce(operator.or_, other.unchain_tasks(), self)
        if not isinstance(other, Signature):
            return NotImplemented
        last = self.tasks[-1] if self.tasks else None
        if isinstance(last, group):
            chained = cast(_chain, self.clone())
            chained.tasks[-1] = _chord(chained.tasks[-1], other)
            if len(chained.tasks) > 1 and isinstance(chained.tasks[-2], _chord):
                # Two barriers in a row: the second one is what the first one leads to.
                chained.tasks[-2].body = chained.tasks[-2].body | chained.tasks[-1]
                del chained.tasks[-1]
            return chained
        if isinstance(last, _chord) and not isinstance(other, _chord):
            chained = cast(_chain, self.clone())
            chained.tasks[-1].body = chained.tasks[-1].body | other
            return chained
        return _chain([*self.unchain_tasks(), other])

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Fix all ids; return the handle of the last step's result, the others being its parents."""
        steps = self.steps()
        if not steps:
            raise ValueError("An empty chain has no result")
        result: Any = None
        for step, is_last in [(one, False) for one in steps[:-1]] + [(steps[-1], True)]:
            if is_last:
                member = {"group_id": group_id, "chord": chord, "group_index": group_index}
                after = step.freeze(_id, root_id=root_id, parent_id=parent_id, **member)
            else:
                after = step.freeze(root_id=root_id, parent_id=parent_id)
            if result is not None:
                _first_of(after).parent = result
            result = after
        self.id = result.id
        return result

    def steps(self) -> list[Signature]:
        """Return what really runs, one after the other: without groups of none and of one, and chains in the chain."""
        steps: list[Signature] = []
        for one in self.tasks:
            step = one.unrolled() if isinstance(one, group) else one
            if isinstance(step, _chain):
                for callback in as_list(step.options.pop("link", None)):
                    step.tasks[-1].link(callback)
                for errback in as_list(step.options.pop("link_error", None)):
                    for inner in step.tasks:
                        inner.link_error(errback)
                steps += step.steps()
            else:
                steps.append(step)
        full = [one for one in steps if not is_empty_group(one)]
        return full or steps[:1]

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> None:
        visited = None if visitor is None else visitor.on_chain_start(self, **headers) or {}
        headers = merged(headers, visited, self.options, append=append_stamps)
        self.stamp_links(visitor, append_stamps, **headers)
        for one in self.tasks:
            one.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_chain_end(self, **headers)

    def __repr__(self) -> str:
        if not self.tasks:
            return f"<{type(self).__name__}@{id(self):#x}: empty>"
        return without_repeating(self.tasks[0]["task"], " | ".join(map(repr, self.tasks)))


class chain(_chain):
    """One task after the other, each with the result of the one before it.

    ``chain(a.s(1), b.s(), c.s())()`` is ``(a.s(1) | b.s() | c.s())()``. One iterable may be given instead. What it
    returns is the result of the last task, the others are its ``parent``, and so on.
    """

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        if tasks and not options and (len(tasks) > 1 or _is_iterable(tasks[0])):
            return _folded(list(tasks[0] if len(tasks) == 1 else tasks))
        return super().__new__(cls)

    def _bare(self) -> Any:
        return _chain.__new__(_chain)


def _folded(tasks: list[Any]) -> Any:
    """Combine ``tasks`` with ``|``, but without a copy of everything for each of them."""
    steps: list[Any] = []
    for position, one in enumerate(tasks):
        whole = _add(steps, maybe_signature(one), copy=position < len(tasks) - 1)
        if whole is not None:  # it is no chain any more
            return reduce(operator.or_, tasks[position + 1 :], whole)
    return _chain(steps)


def _add(steps: list[Any], other: Any, *, copy: bool) -> Any:
    """Add a step as ``|`` would; return what ``|`` makes of it instead, if that is no chain."""
    if is_empty_group(other):
        return None
    if isinstance(other, group):
        other = other.unrolled()
        if not isinstance(other, group):
            return _add(steps, other, copy=copy)
        if not steps:
            return other
        if isinstance(steps[-1], _chord):
            steps[-1].body = steps[-1].body | other
        else:
            steps.append(other.clone() if copy else other)
        return None
    if isinstance(other, _chain):
        inner = other.unchain_tasks()
        for position, one in enumerate(inner):
            whole = _add(steps, one, copy=False)
            if whole is not None:
                return reduce(operator.or_, inner[position + 1 :], whole)
        return None
    other = _part_of("chain", other)
    last = steps[-1] if steps else None
    other = other.clone() if copy else other
    if isinstance(last, group):
        steps[-1] = _chord(last, other)
    elif isinstance(last, _chord) and not isinstance(other, _chord):
        last.body = last.body | other
    else:
        steps.append(other)
    return None


@Signature.register_type()
class group(Canvas):
    """Tasks that run side by side: ``group(a.s(1), a.s(2))()``, or of one iterable. The result has one for each."""

    tasks = _part("tasks", "Its members.")
    #: Does it become part of a group that it is in, and is nothing if it is empty, and its member if that is one?
    is_merged: ClassVar[bool] = True

    def __init__(self, *tasks: Any, app: Any = None, **options: Any) -> None:
        members: Any = tasks
        if len(tasks) == 1:
            members = tasks[0]
            if isinstance(members, group) and members.is_merged:
                members = members.tasks
            elif isinstance(members, Signature):
                members = [members.clone()]
            elif not _is_iterable(members):
                members = [members]
        super().__init__(
            "django_tasks.group",
            (),
            {"tasks": _as_signatures(members, type(self).__name__)},
            subtask_type="group",
            **options,
        )

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        return restored(group(list(map(maybe_signature, d["kwargs"]["tasks"])), **d["options"]), d)

    def __call__(self, *partial_args: Any, **options: Any) -> Any:
        """Send it."""
        return self.apply_async(partial_args, **options)

    def __or__(self, other: Any) -> Any:
        if is_empty_group(other):
            return self
        return _chord(self, other) if isinstance(other, Signature) else NotImplemented

    def __len__(self) -> int:
        return len(self.tasks)

    def unrolled(self) -> Signature:
        """Return the member of a group of one, else the group."""
        return cast(Signature, self.tasks[0]) if self.is_merged and len(self.tasks) == 1 else self

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **opts: Any
    ) -> Signature:
        other = super().clone(args, kwargs, **opts)
        members = other.kwargs["tasks"]
        other.kwargs["tasks"] = type(members)([one.clone() for one in members])
        return other

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        for key in ("link", "link_error"):
            if options.get(key) is not None:
                raise TypeError(f"A group has no end to link to ({key}=…): use a chord, or link its members")
        return super().apply_async(args, kwargs, **options)

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Self:
        """Let the members start one after the other: the first after ``start`` seconds, each ``step`` seconds later,
        but none later than ``stop``."""
        delay = start
        for one in self.tasks:
            one.set(countdown=delay)
            if stop is None or delay + step <= stop:
                delay += step
        return self

    def set_immutable(self, immutable: bool) -> None:
        for one in self.tasks:
            one.set_immutable(immutable)

    def link(self, callback: Any) -> Any:
        """Link to the first member, without its result."""
        return self.tasks[0].link(callback.clone().set(immutable=True))

    def link_error(self, errback: Any) -> Any:
        """Link to each member; return what was linked."""
        errback = maybe_signature(errback)
        return tuple(one.link_error(errback.clone()) for one in self.tasks)

    def members(self) -> list[Signature]:
        """Return its members, and theirs if they are groups themselves."""
        flat: list[Signature] = []
        for one in self.tasks:
            if isinstance(one, group) and one.is_merged:
                flat += one.members()
            elif not (isinstance(one, _chain) and not one.tasks):
                flat.append(one)
        return flat

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Fix all ids; return the handles of the members' results. Groups in the group become part of it."""
        options = self.options
        own = options.setdefault("task_id", _id or ids.new_id())
        told = {"group_id": group_id, "chord": chord, "root_id": root_id, "parent_id": parent_id}
        options.update({key: value for key, value in told.items() if value})
        if group_index is not None:
            options["group_index"] = group_index
        self.tasks = self.members()
        results = [
            one.freeze(group_id=own, chord=chord, root_id=root_id, parent_id=parent_id, group_index=index)
            for index, one in enumerate(self.tasks)
        ]
        return GroupResult(own, results)

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> None:
        visited = None if visitor is None else visitor.on_group_start(self, **headers) or {}
        headers = merged(headers, visited, self.options, append=append_stamps)
        self.stamp_links(visitor, append_stamps, **headers)
        for one in self.tasks:
            one.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_group_end(self, **headers)

    def __repr__(self) -> str:
        if not self.tasks:
            return "group(<empty>)"
        return without_repeating(self.tasks[0]["task"], f"group({self.tasks!r})")


@Signature.register_type("chord")
class _chord(Canvas):
    """A group, and a body that gets the list of its results: ``chord([a.s(1), a.s(2)])(total.s())``."""

    tasks = _part("header", "Its header: what is to be done before the body.")
    body = _part("body", "What gets the list of the header's results.")

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: str = "django_tasks.chord",
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        app: Any = None,
        subtask_type: str | None = None,
        **options: Any,
    ) -> None:
        body = body if body is None else _part_of("chord", body)
        parts = {**(kwargs or {"kwargs": {}}), "header": _header(header), "body": body}
        super().__init__(task, args or (), parts, subtask_type="chord", **options)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        kwargs = dict(d["kwargs"])
        header, body = kwargs.pop("header", None), kwargs.pop("body", None)
        if isinstance(header, Mapping):
            header = maybe_signature(header)
        whole = _chord(header if header is not None else [], body, kwargs=kwargs, args=d.get("args"), **d["options"])
        return restored(whole, d)

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it, with this body if one is given."""
        return self.apply_async((), {"body": body} if body else {}, **options)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        whole, given = self._with_body(kwargs)
        return whole.engine.send(whole, tuple(args or ()), given, options)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        propagate: bool = True,
        body: Any = None,
        **options: Any,
    ) -> Any:
        whole, given = self._with_body({**(kwargs or {}), **({"body": body} if body else {})})
        return whole.engine.run(whole, tuple(args or ()), given, options)

    def _with_body(self, kwargs: Mapping[str, Any] | None) -> tuple[_chord, dict[str, Any]]:
        given = {**self.kwargs.get("kwargs", {}), **(kwargs or {})}
        body = given.pop("body", None)
        whole = self
        if body is not None:
            whole = cast(_chord, self.clone())
            whole.body = _part_of("chord", body).clone()
        if whole.body is None:
            raise TypeError("A chord needs a body: chord(header)(body)")
        return whole, given

    def __or__(self, other: Any) -> Any:
        is_single = isinstance(other, group) and other.unrolled() is not other
        if is_single or (isinstance(other, Signature) and not isinstance(other, group | _chain)):
            other = other.unrolled() if is_single else other
            whole = cast(_chord, self.clone())
            whole.body = whole.body | other
            return whole
        return super().__or__(other)

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **opts: Any
    ) -> Signature:
        other = super().clone(args, kwargs, **opts)
        header = other.kwargs["header"]
        other.kwargs["header"] = header.clone() if isinstance(header, group) else [one.clone() for one in header]
        other.kwargs["body"] = maybe_signature(other.kwargs["body"], clone=True)
        return other

    def header_group(self) -> group:
        """Return its header as a group."""
        return self.tasks if isinstance(self.tasks, group) else group(self.tasks)

    def link(self, callback: Any) -> Any:
        """Link to the body."""
        self.body.link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Link to the body; with ``TASK_ALLOW_ERROR_CB_ON_CHORD_HEADER`` to each task of the header, too."""
        errback = maybe_signature(errback)
        for one in as_list(self.tasks.tasks if isinstance(self.tasks, group) else self.tasks):
            if settings.TASK_ALLOW_ERROR_CB_ON_CHORD_HEADER:
                one.link_error(errback.clone().set(immutable=True))
            elif isinstance(one, _chord):
                one.link_error(errback)
        self.body.link_error(errback)
        return errback

    def set_immutable(self, immutable: bool) -> None:
        """Say whether the header takes more arguments; the body stays as it is."""
        for one in self.tasks.tasks if isinstance(self.tasks, group) else self.tasks:
            one.set_immutable(immutable)

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Fix all ids; return the handle of the body's result, whose parent is the header's."""
        self.tasks = self.header_group()
        header = self.tasks.freeze(root_id=root_id, parent_id=parent_id, chord=None)
        self.id = self.tasks.id
        if self.body is None:
            return None
        member = {"group_id": group_id, "chord": chord, "group_index": group_index}
        result = self.body.freeze(_id, root_id=root_id, **member)
        _first_of(result).parent = header
        return result

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> None:
        members = self.tasks.tasks if isinstance(self.tasks, group) else self.tasks
        visited = None if visitor is None else visitor.on_chord_header_start(self, **headers) or {}
        headers = merged(headers, visited, self.options, append=append_stamps)
        self.stamp_links(visitor, append_stamps, **headers)
        for one in members:
            one.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_chord_header_end(self, **headers)
            if self.body is not None:
                visited = visitor.on_chord_body(self, **headers) or {}
                self.body.stamp(visitor, append_stamps, **merged(headers, visited, self.options, append=append_stamps))

    def __repr__(self) -> str:
        if not self.body:
            return f"<chord without body: {self.tasks!r}>"
        if isinstance(self.body, _chain) and self.body.tasks:
            first, rest = self.body.tasks[0], self.body.tasks[1:]
            return without_repeating(first["task"], f"%({_repr_with(first, self.tasks)} | {chain(rest)!r})")
        return "%" + without_repeating(self.body["task"], _repr_with(self.body, self.tasks))


chord = _chord


def _header(header: Any) -> Any:
    if isinstance(header, Mapping):
        header = signature(header)
    if isinstance(header, group) and not header.is_merged:
        return header
    if isinstance(header, group | _chain):
        return header.tasks
    if isinstance(header, Signature):
        return [header]
    return [signature(one) if isinstance(one, str) else _part_of("chord", one).clone() for one in header]


def _repr_with(sig: Signature, args: Any) -> str:
    """Return the call as text, with ``args`` before its own."""
    given = args.tasks if isinstance(args, group) else args
    return repr_call(sig["task"], [given, *sig["args"]], sig["kwargs"])


def _first_of(result: Any) -> Any:
    """Return the first of the results that lead to this one."""
    while result.parent is not None:
        result = result.parent
    return result


def restored(sig: Signature, d: Mapping[str, Any]) -> Signature:
    sig["options"] = copied(d["options"])
    sig["immutable"] = bool(d.get("immutable"))
    if d.get("args"):
        sig["args"] = tuple(d["args"])
    return sig
