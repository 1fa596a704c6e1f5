"""The tasks that are always there: what canvases are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import bulk
from .canvas.batches import BATCH_TASK
from .canvas.maps import chunks
from .canvas.plan import SEND_TASK
from .canvas.signatures import signature
from .canvas.taking_over import ACCUMULATE
from .declaring import shared_task


@shared_task(name="django_tasks.map")
def map_(task: Mapping[str, Any], it: Iterable[Any]) -> list[Any]:
    """Call a task for each item."""
    function = signature(dict(task)).type
    return [function(item) for item in it]


@shared_task(name="django_tasks.starmap")
def starmap(task: Mapping[str, Any], it: Iterable[Sequence[Any]]) -> list[Any]:
    """Call a task with each item as its arguments."""
    function = signature(dict(task)).type
    return [function(*item) for item in it]


@shared_task(name="django_tasks.chunks", typing=False)
def send_chunks(task: Mapping[str, Any], it: Iterable[Any], n: int) -> Any:
    """Send many calls as a group of tasks that run ``n`` of them each."""
    return chunks(dict(task), it, n).apply_async()


@shared_task(name=ACCUMULATE)
def accumulate(*args: Any, index: int | None = None) -> Any:
    """Return one of the arguments, or all of them."""
    return args if index is None else args[index]


@shared_task(name=BATCH_TASK, ignore_result=True)
def batch() -> None:
    """Stand for a batch that has nothing to call when all of it succeeded."""


@shared_task(name=SEND_TASK)
def send(task_id: str, sig: Mapping[str, Any]) -> None:
    """Send a canvas that is linked as an errback, with the id of the task that failed."""
    signature(dict(sig)).apply_async((task_id,))


@shared_task(name=bulk.TASK_NAME)
def work_on_bulk_operation(operation_id: int) -> None:
    """Go on with an action on all that match, for a while, and leave the rest to the next one."""
    operation = bulk.work(operation_id)
    if operation is not None and operation.is_active:
        bulk.send(operation)
