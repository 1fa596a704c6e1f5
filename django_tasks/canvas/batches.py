"""``batch``: tasks side by side, and who is told when they are done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from ..result import GroupResult
from .primitives import group, restored
from .signatures import Signature, checked, copied, maybe_signature
from .stamping import StampingVisitor

__all__ = ["batch"]

#: Stands for the callback that is not there.
BATCH_TASK = "django_tasks.batch"
CALLBACKS = ("on_success", "on_failure", "on_complete")


@Signature.register_type()
class batch(group):
    """A group with callbacks for its end, each called at most once.

    ``batch([pay.s(1), pay.s(2)], on_success=thank.s(), on_failure=alert.s(), on_complete=close.s())()``

    ``tasks`` is an iterable of signatures, or a group. When all of them have ended,

    * ``on_success`` is called if all succeeded, with the list of their results, as a chord's body;
    * ``on_failure`` is called if one did not, as ``link_error`` calls an errback: with ``(request, exc, traceback)``,
      or with the id alone, of what stood for the whole batch;
    * ``on_complete`` is called in any case, with the list of what became of them: dicts with ``id``, ``state``, and
      ``result`` or ``error``.

    An immutable callback gets nothing of that. Each may be a canvas. ``options`` are those of the tasks.

    In a chain, a chord, a group, a dag or another batch it is one part: what comes before it goes to each of its
    tasks, what comes after it gets the list of their results, and waits for no callback. If what comes before fails,
    nothing of it runs, and no callback is called.

    Raises ``TypeError`` for what is no signature.
    """

    is_merged: ClassVar[bool] = False

    def __init__(
        self,
        tasks: Iterable[Any],
        *,
        on_success: Any = None,
        on_failure: Any = None,
        on_complete: Any = None,
        app: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(tasks, **options)
        self["task"], self["subtask_type"] = BATCH_TASK, "batch"
        for name, given in zip(CALLBACKS, (on_success, on_failure, on_complete), strict=True):
            if given is not None:
                self.kwargs[name] = checked(given, f"{name} must be a signature, as task.s() returns it, not {given!r}")

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        parts = {name: maybe_signature(part) for name, part in d["kwargs"].items() if name in CALLBACKS}
        return restored(batch(map(maybe_signature, d["kwargs"]["tasks"]), **parts, **copied(d["options"])), d)

    def callback(self, name: str) -> Signature | None:
        """Return a copy of one of its callbacks, by its name, whose ids are fixed."""
        found = self.kwargs.get(name)
        if found is None:
            return None
        copy: Signature = found.clone()
        copy.freeze()
        return copy

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **opts: Any
    ) -> Signature:
        other = super().clone(args, kwargs, **opts)
        for name, callback in self._callbacks():
            other.kwargs[name] = callback.clone()
        return other

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> GroupResult:
        """Send it, all of it or nothing, in the caller's transaction; return the handles of its tasks.

        They are kept as a group: ``GroupResult.restore(result.id)`` finds them again, as long as results are kept.
        """
        result: GroupResult = super().apply_async(args, kwargs, **options)
        return result.save()

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> None:
        super().stamp(visitor, append_stamps, **headers)
        for _, callback in self._callbacks():
            callback.stamp(visitor, append_stamps, **headers)

    def _callbacks(self) -> Iterator[tuple[str, Any]]:
        return ((name, self.kwargs[name]) for name in CALLBACKS if name in self.kwargs)

    def __repr__(self) -> str:
        callbacks = "".join(f", {name}={callback!r}" for name, callback in self._callbacks())
        return f"batch({self.tasks!r}{callbacks})"
