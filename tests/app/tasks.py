"""Tasks of the tests' own app."""

from __future__ import annotations

from typing import Any

from django_tasks import Task, shared_task


@shared_task
def add(x: int, y: int = 0) -> int:
    return x + y


@shared_task
def noop(*args: Any, **kwargs: Any) -> None:
    pass


@shared_task(bind=True)
def whoami(self: Task[..., Any]) -> dict[str, Any]:
    return {"id": self.request.id, "attempt": self.request.attempt, "worker": self.request.hostname}


@shared_task
def fail(message: str = "boom") -> None:
    raise ValueError(message)


@shared_task
def echo(value: Any) -> Any:
    return value
