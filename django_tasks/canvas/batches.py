"""``batch``: tasks side by side, and who is told when they are done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from asgiref.sync import sync_to_async

from .. import ids
from ..result import GroupResult
from .plan import Plan
from .primitives import group
from .sending import dispatch
from .signatures import Signature, as_list, maybe_signature

__all__ = ["batch"]

#: Stands for the callback that is not there.
BATCH_TASK = "django_tasks.batch"


class batch:
    """Tasks that run side by side, with callbacks for their common end, each called at most once.

    ``batch([pay.s(1), pay.s(2)], on_success=thank.s(), on_failure=alert.s(), on_complete=close.s())()``

    ``tasks`` is an iterable of signatures, or a group. When all of them have ended,

    * ``on_success`` is called if all succeeded, with the list of their results, as a chord's body;
    * ``on_failure`` is called if one did not, as ``link_error`` calls an errback: with ``(request, exc, traceback)``,
      or with the id alone, of what stood for the whole batch;
    * ``on_complete`` is called in any case, with the list of what became of them: dicts with ``id``, ``state``, and
      ``result`` or ``error``.

    An immutable callback gets nothing of that. Each may be a canvas. ``options`` are those of the tasks.

    Raises ``TypeError`` for what is no signature.
    """

    def __init__(
        self,
        tasks: Iterable[Any],
        *,
        on_success: Any = None,
        on_failure: Any = None,
        on_complete: Any = None,
        **options: Any,
    ) -> None:
        self.tasks = cast(group, tasks.clone()) if isinstance(tasks, group) else group(tasks)
        self.on_success = _callback("on_success", on_success)
        self.on_failure = _callback("on_failure", on_failure)
        self.on_complete = _callback("on_complete", on_complete)
        self.options = options
        wrong = [one for one in self.tasks.tasks if not isinstance(one, Signature)]
        if wrong:
            raise TypeError(f"A batch is made of signatures, as task.s() returns them; {wrong[0]!r} is none")

    def __call__(self, *args: Any, **kwargs: Any) -> GroupResult:
        """Send it, with further arguments for its tasks."""
        return self.apply_async(args, kwargs)

    delay = __call__

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> GroupResult:
        """Send it, all of it or nothing, in the caller's transaction; return the handles of its tasks.

        They are kept as a group: ``GroupResult.restore(result.id)`` finds them again, as long as results are kept.
        """
        members = self.tasks.clone()
        given = {**self.options, **options}
        result: GroupResult = members.freeze(given.pop("task_id", None) or ids.new_id())
        plan = Plan(given.pop("root_id", None), given.pop("parent_id", None))
        end = plan.add(members, None, args or (), kwargs or {}, given)
        if self.on_success is not None or self.on_failure is not None:
            body = self.on_success or Signature(BATCH_TASK, immutable=True)
            first = len(plan.nodes)
            if end.nodes:
                plan.add(_frozen(body), end)
            else:
                plan.add(_frozen(body), None, ([],))
            plan.fall_back(first, as_list(self.on_failure))
        if self.on_complete is not None:
            if end.nodes:
                plan.add(_frozen(self.on_complete), plan.whatever(end))
            else:
                plan.add(_frozen(self.on_complete), None, ([],))
        done: GroupResult = dispatch(plan, result, given)
        return done.save()

    async def aapply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> GroupResult:
        """Send it from asynchronous code."""
        return await sync_to_async(self.apply_async)(args, kwargs, **options)

    def __repr__(self) -> str:
        told = {name: getattr(self, name) for name in ("on_success", "on_failure", "on_complete")}
        callbacks = "".join(f", {name}={one!r}" for name, one in told.items() if one is not None)
        return f"batch({self.tasks.tasks!r}{callbacks})"


def _callback(name: str, given: Any) -> Signature | None:
    sig = maybe_signature(given)
    if sig is not None and not isinstance(sig, Signature):
        raise TypeError(f"{name} must be a signature, as task.s() returns it, not {given!r}")
    return sig


def _frozen(sig: Signature) -> Signature:
    copy = sig.clone()
    copy.freeze()
    return copy
