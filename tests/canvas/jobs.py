"""Tasks that the canvases of tests are made of. What they note is in this process: workers of tests run in it, too."""

from __future__ import annotations

from typing import Any

from django_tasks import Task, chain, group, shared_task
from django_tasks.exceptions import Ignore

#: What was noted, in order.
notes: list[Any] = []


@shared_task
def add(x: int, y: int = 1) -> int:
    return x + y


@shared_task
def listed(*args: Any) -> list[Any]:
    return list(args)


@shared_task
def total(values: list[int]) -> int:
    return sum(values)


@shared_task
def summed(values: Any) -> list[Any]:
    return ["sum", values]


@shared_task
def boom(*args: Any) -> None:
    raise ValueError("boom")


@shared_task
def ignoring(*args: Any) -> None:
    raise Ignore


@shared_task(bind=True, max_retries=3)
def shaky(self: Task[..., Any], value: Any, failures: int) -> Any:
    """Fail so many times, and then return the value."""
    if self.request.retries < failures:
        raise self.retry(countdown=0)
    return value


@shared_task
def note(value: Any, *more: Any) -> Any:
    notes.append([value, *more] if more else value)
    return value


@shared_task
def note_error(request: Any, exc: BaseException, traceback: Any, *more: Any) -> None:
    notes.append((request.id, request.task, repr(exc), *more))


@shared_task
def note_failed(task_id: str, more: str) -> None:
    notes.append(("failed", task_id, more))


@shared_task(bind=True)
def where(self: Task[..., Any], *args: Any) -> dict[str, Any]:
    request = self.request
    return {
        "id": request.id,
        "root": request.root_id,
        "parent": request.parent_id,
        "group": request.group,
        "index": request.group_index,
        "chord": request.chord,
        "chain": [one["task"] for one in request.chain or ()],
        "callbacks": [one["task"] for one in request.callbacks or ()],
        "errbacks": [one["task"] for one in request.errbacks or ()],
        "stamps": request.stamps,
        "priority": (request.delivery_info or {})["priority"],
        "headers": request.headers,
        "nesting": request.replaced_task_nesting,
    }


@shared_task(bind=True)
def replacing(self: Task[..., Any], x: int, kind: str) -> Any:
    """Put something else in its place."""
    return self.replace(
        {
            "task": add.s(x, 10),
            "group": group(add.s(x, 1), add.s(x, 2)),
            "chain": chain(add.s(x, 1), add.s(1)),
            "chord": group(add.s(x, 1), add.s(x, 2)) | total.s(),
            "chain of group": chain(add.s(x, 1), group(add.s(1), add.s(2))),
            "where": where.s(),
            "boom": chain(boom.s(), add.s(1)),
        }[kind]
    )


@shared_task(bind=True)
def growing(self: Task[..., Any], x: int, more: int) -> int:
    """Add more tasks to the chord that it is in."""
    for number in range(more):
        self.add_to_chord(add.s(number, 100))
    return x
