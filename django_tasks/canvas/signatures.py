"""``Signature``: a call that is not made yet, as data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from types import GenericAlias
from typing import Any, ClassVar, Protocol, Self, TypeVar

from asgiref.sync import sync_to_async

from .. import ids
from ..options import as_arguments
from ..redaction import hidden_call
from ..registry import tasks
from ..result import AsyncResult
from .stamping import StampingVisitor, merged

__all__ = ["Signature", "maybe_signature", "maybe_subtask", "signature", "subtask"]

S = TypeVar("S", bound="type[Signature]")

#: Options that a later call does not change: others already rely on them.
_FIXED = frozenset({"group_id", "stamped_headers"})


def _item(name: str, doc: str) -> Any:
    def get(self: Signature) -> Any:
        return self[name]

    def set_(self: Signature, value: Any) -> None:
        self[name] = value

    return property(get, set_, doc=doc)


def _option(name: str, doc: str) -> Any:
    def get(self: Signature) -> Any:
        return self["options"].get(name)

    def set_(self: Signature, value: Any) -> None:
        self["options"][name] = value

    return property(get, set_, doc=doc)


class Engine(Protocol):
    """Makes calls of signatures."""

    def send(self, sig: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """Send it and return the result's handle."""

    def run(self, sig: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """Run it here and return its result."""


class Signature(dict[str, Any]):
    """A call that is not made yet: a task's name, arguments and options, as a dict that survives JSON.

    Arguments that are given later come first, keyword arguments are merged, the later ones winning; an ``immutable``
    signature takes neither. Names and meanings are Celery's
    (https://docs.celeryq.dev/en/stable/userguide/canvas.html). ``app=`` is accepted and means nothing here.
    """

    #: The kinds that ``subtask_type`` names.
    TYPES: ClassVar[dict[str, type[Signature]]] = {}
    #: How canvases are sent and run; :mod:`.sending` says so.
    engine: ClassVar[Engine]

    task = _item("task", "Name of the task.")
    args = _item("args", "Positional arguments.")
    kwargs = _item("kwargs", "Keyword arguments.")
    options = _item("options", "Options of the call, as for ``apply_async``.")
    subtask_type = _item("subtask_type", "Kind of canvas; ``None`` for a task's call.")
    immutable = _item("immutable", "Does it take no more arguments?")
    id = _option("task_id", "The id that the call will have, once frozen.")
    parent_id = _option("parent_id", "Id of the task that sends it.")
    root_id = _option("root_id", "Id of the first task of all.")

    #: The declared task, if it was made of one.
    _type: Any = None

    def __init__(
        self,
        task: Any = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Any = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Any = None,
        **more: Any,
    ) -> None:
        if isinstance(task, dict):
            super().__init__(task)
            return
        name = getattr(task, "name", None)
        if isinstance(name, str):
            self._type = task
        super().__init__(
            task=name if isinstance(name, str) else task,
            args=tuple(args or ()),
            kwargs=kwargs or {},
            options={**(options or {}), **more},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[S], S]:
        """Make a subclass known under ``subtask_type``, by its own name unless given."""

        def register(subclass: S) -> S:
            cls.TYPES[name or subclass.__name__] = subclass
            return subclass

        return register

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        """Build the right kind of signature again from a dict, such as one that was JSON."""
        kind = d.get("subtask_type")
        if not kind:
            return Signature(dict(d))
        if kind not in cls.TYPES:
            raise ValueError(f"subtask_type {kind!r} is unknown; known are {', '.join(sorted(cls.TYPES))}")
        return cls.TYPES[kind].from_dict(d, app=app)

    # Calling

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Call the task's function here and now."""
        args, kwargs, _ = self._merge(partial_args, partial_kwargs, None)
        return self.type(*args, **kwargs)

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Send it, with these further arguments."""
        return self.apply_async(partial_args, partial_kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Send it, with further arguments and options, and return the result's handle.

        Options that are ``None`` change nothing. ``route_name`` is accepted for Celery's sake.
        Raises as :meth:`~django_tasks.Task.apply_async` does.
        """
        given = {key: value for key, value in options.items() if value is not None}
        args, kwargs, options = self._merge(args, kwargs, given)
        task = self._task()
        if task is not None:
            return task.apply_async(args, kwargs, **options)
        args, kwargs = as_arguments(self.task, args, kwargs)
        return self.engine.send(Signature(self.task, args, kwargs, options), (), {}, {})

    async def adelay(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Send it from asynchronous code."""
        return await self.aapply_async(partial_args, partial_kwargs)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Send it from asynchronous code, with options."""
        return await sync_to_async(self.apply_async)(args, kwargs, **options)

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run it here, as :meth:`~django_tasks.Task.apply` does."""
        given = {key: value for key, value in options.items() if value is not None}
        args, kwargs, options = self._merge(args, kwargs, given)
        return self.type.apply(args, kwargs, **options)

    def __invert__(self) -> Any:
        """``~sig``: send it and wait for the result."""
        return self.apply_async().get()

    # Making others of it

    def _merge(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> tuple[Any, Any, Any]:
        merged_options = self.options
        if options:
            fixed = _FIXED | set(self.options.get("stamped_headers") or ())
            taken = {key: value for key, value in options.items() if key not in fixed or key not in self.options}
            merged_options = {**self.options, **taken}
        if self.immutable and not force:
            return self.args, self.kwargs, merged_options
        return (
            (*args, *self.args) if args else self.args,
            {**self.kwargs, **kwargs} if kwargs else self.kwargs,
            merged_options,
        )

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **opts: Any
    ) -> Signature:
        """Return a copy with further arguments and options."""
        args, kwargs, options = self._merge(args, kwargs, opts)
        other = self._bare()
        dict.update(
            other,
            task=self.task,
            args=tuple(args),
            kwargs=dict(kwargs),
            options=copied(options),
            subtask_type=self.subtask_type,
            immutable=self.immutable,
        )
        other._type = self._type
        return other

    partial = clone

    def _bare(self) -> Self:
        """Return an empty one of the same class."""
        return self.__class__.__new__(self.__class__)

    def replace(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Signature:
        """Return a copy whose arguments, keyword arguments or options are these; ``None`` leaves them as they are."""
        other = self.clone()
        for key, value in (("args", args), ("kwargs", kwargs), ("options", options)):
            if value is not None:
                other[key] = value
        return other

    def set(self, immutable: bool | None = None, **options: Any) -> Self:
        """Set options here; return itself."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Say whether it takes no more arguments."""
        self.immutable = immutable

    # Identity

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Fix the id that the call will have; return the handle of its result."""
        options = self.options
        if "task_id" not in options:
            options["task_id"] = _id or ids.new_id()
        told = {"root_id": root_id, "parent_id": parent_id, "chord": chord}
        options.update({key: value for key, value in told.items() if value})
        if group_id:
            options.setdefault("group_id", group_id)
        if group_index is not None:
            options["group_index"] = group_index
        return self.AsyncResult(options["task_id"])

    _freeze = freeze

    def AsyncResult(self, task_id: str, **kwargs: Any) -> Any:
        """Return the handle of a call of this task."""
        result: AsyncResult[Any] = AsyncResult(task_id, task_name=self.task, **kwargs)
        return result

    # Links

    def _listed(self, key: str) -> list[Any]:
        found = self.options.get(key)
        if not isinstance(found, list):
            found = self.options[key] = as_list(found)
        return found

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Add to an option that is a list, unless it is in there."""
        items = self._listed(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Add all of these to an option that is a list."""
        self._listed(key).extend(as_list(value))

    def link(self, callback: Any) -> Any:
        """Send ``callback`` with the result when this succeeds; return the callback."""
        checked(callback, f"link() takes a signature, as task.s() returns it, not {callback!r}")
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Send ``errback`` when this fails; return the errback."""
        checked(errback, f"link_error() takes a signature, as task.s() returns it, not {errback!r}")
        return self.append_to_list_option("link_error", errback)

    def on_error(self, errback: Any) -> Self:
        """Send ``errback`` when this fails; return this signature."""
        self.link_error(errback)
        return self

    def flatten_links(self) -> list[Any]:
        """Return this and everything linked to it, and so on."""
        linked = (maybe_signature(link).flatten_links() for link in as_list(self.options.get("link")))
        return [self, *itertools.chain.from_iterable(linked)]

    # Stamps

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Put stamps on it: headers that a task finds as ``request.stamps``."""
        self.stamp_links(visitor, append_stamps, **headers)
        visited = None if visitor is None else visitor.on_signature(self, **headers) or {}
        return self.set(**merged(headers, visited, self.options, append=append_stamps))

    def stamp_links(self, visitor: StampingVisitor | None, append_stamps: bool = False, **headers: Any) -> None:
        """Put stamps on what is linked to it."""
        for key, visit in (("link", "on_callback"), ("link_error", "on_errback")):
            stamps = deepcopy(headers)
            found = self.options.get(key)
            if found is None:
                continue
            linked = [maybe_signature(link) for link in as_list(found)]
            for link in linked:
                visited = None if visitor is None else getattr(visitor, visit)(link, **stamps) or {}
                stamps = merged(stamps, visited, None, append=append_stamps)
                link.stamp(visitor, append_stamps, **stamps)
            self.options[key] = linked

    # Combining

    def __or__(self, other: Any) -> Any:
        """``a | b``: first this, then ``other`` with its result."""
        chain: Any = self.TYPES["chain"]
        group: Any = self.TYPES["group"]
        if isinstance(other, chain):
            return chain([self, *other.unchain_tasks()])
        if isinstance(other, group):
            return chain(self, other.unrolled())
        if isinstance(other, Signature):
            return chain(self, other)
        return NotImplemented

    def __ior__(self, other: Any) -> Any:
        return self.__or__(other)

    # What it is

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.task  # type: ignore[no-any-return]

    @property
    def type(self) -> Any:
        """The declared task. Raises :class:`~django_tasks.exceptions.NotRegistered`."""
        return self._type or tasks[self.task]

    def _task(self) -> Any:
        return self._type or tasks.get(self.task)

    @property
    def app(self) -> None:
        """Celery's apps have no counterpart here."""
        return None

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """Return the call as text, with these further arguments."""
        args, kwargs, _ = self._merge(args, kwargs, {}, force=True)
        return repr_call(self.task, args, kwargs, taken=0 if self.immutable else None)

    def __repr__(self) -> str:
        return self.reprcall()

    def __json__(self) -> dict[str, Any]:
        return dict(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return signature, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        other = self.clone()
        memo[id(self)] = other
        return other

    def __copy__(self) -> Any:
        return self.clone()

    __class_getitem__: Any = classmethod(GenericAlias)


def signature(varies: Any, *args: Any, **kwargs: Any) -> Signature:
    """Return a signature: a copy of one, one made of a dict, or a new one of a task or a task's name.

    ``signature("shop.tasks.pay", args=(1,), kwargs={}, options={})``
    """
    if isinstance(varies, Signature):
        return varies.clone()
    if isinstance(varies, dict):
        return Signature.from_dict(varies)
    return Signature(varies, *args, **kwargs)


def maybe_signature(d: Any, app: Any = None, clone: bool = False) -> Any:
    """Return a signature for a dict, and what is one already as it is, or cloned; ``None`` for ``None``."""
    if isinstance(d, Signature):
        return d.clone() if clone else d
    return signature(d) if isinstance(d, dict) else d


def checked(given: Any, problem: str) -> Signature:
    """Return a signature for one, or for a dict.

    Raises ``TypeError`` with this ``problem``, and what to do instead where that is known.
    """
    sig = maybe_signature(given)
    if isinstance(sig, Signature):
        return sig
    instead = getattr(given, "instead", "")
    raise TypeError(f"{problem}. {instead}" if instead else problem)


#: Celery's older names.
subtask = signature
maybe_subtask = maybe_signature


def repr_call(name: Any, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, *, taken: int | None = 0) -> str:
    """Return a call as text: ``add(2, y=3)``; ``taken`` as for :func:`~django_tasks.redaction.hidden_call`."""
    args, kwargs = hidden_call(str(name), args or (), kwargs or {}, taken=taken)
    parts = [repr(one) for one in args]
    parts += [f"{key}={value!r}" for key, value in kwargs.items()]
    return f"{name}({', '.join(parts)})"


def without_repeating(task_name: Any, text: str) -> str:
    """Leave the module of a task's name out of ``text``, all but the first time."""
    module = str(task_name).rpartition(".")[0]
    head, found, rest = text.partition(f"{module}.") if module else (text, "", "")
    return head + found + rest.replace(f"{module}.", "") if found else text


def as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def copied(options: Mapping[str, Any]) -> dict[str, Any]:
    """Copy options so deep that links and lists are not shared; most calls have none that could be."""
    plain = (str, int, float, bool, type(None))
    return {key: value if isinstance(value, plain) else deepcopy(value) for key, value in options.items()}
