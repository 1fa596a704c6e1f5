"""``map``, ``starmap`` and ``chunks``: many calls of one task in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

from .primitives import group
from .signatures import Signature, copied, maybe_signature

__all__ = ["chunks", "xmap", "xstarmap"]


class _Map(Signature):
    _name: ClassVar[str]
    _call: ClassVar[str]

    def __init__(self, task: Any, it: Iterable[Any], app: Any = None, **options: Any) -> None:
        items = it if isinstance(it, list | tuple) else list(it)
        super().__init__(self._name, (), {"task": maybe_signature(task), "it": items}, immutable=True, **options)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        return cls(d["kwargs"]["task"], d["kwargs"]["it"], **copied(d["options"]))

    def __repr__(self) -> str:
        items = repr(self.kwargs["it"])
        if len(items) >= 100:
            items = items[:100].rsplit(" ", 1)[0] + "..."
        return f"[{self.kwargs['task'].task}({self._call}) for x in {items}]"


@Signature.register_type()
class xmap(_Map):
    """One task that calls another one for each item, one after the other: ``add.map([1, 2])``."""

    _name, _call = "django_tasks.map", "x"


@Signature.register_type()
class xstarmap(_Map):
    """The same with the items as argument lists: ``add.starmap([(1, 2), (3, 4)])``."""

    _name, _call = "django_tasks.starmap", "*x"


@Signature.register_type()
class chunks(Signature):
    """Many calls of a task as a group of ``starmap`` of ``n`` calls each: ``add.chunks(zip(xs, ys), 100)``."""

    def __init__(self, task: Any, it: Iterable[Any], n: int, app: Any = None, **options: Any) -> None:
        size: Any = n
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"chunks(…, n): n must be a whole number of calls from 1, not {n!r}")
        items = it if isinstance(it, list | tuple) else list(it)
        parts = {"task": maybe_signature(task), "it": items, "n": n}
        super().__init__("django_tasks.chunks", (), parts, immutable=True, **options)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        return cls(d["kwargs"]["task"], d["kwargs"]["it"], d["kwargs"]["n"], **copied(d["options"]))

    def __call__(self, **options: Any) -> Any:
        """Send it."""
        return self.apply_async(**options)

    def group(self) -> Any:
        """Return the group."""
        return group([xstarmap(self.kwargs["task"], part) for part in _parts(self.kwargs["it"], self.kwargs["n"])])

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        return self.group().apply_async(args, kwargs, **{**self.options, **options})

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        return self.group().apply(args, kwargs, **{**self.options, **options})


def _parts(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
