"""Tasks that look at the process, thread and connection in which they run. Workers load this module by ``IMPORTS``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection

from django_tasks import Task, current_task, shared_task, signals
from django_tasks.models import TaskResult
from tests.integration.jobs import note, wait_for


@shared_task(bind=True)
async def nap(self: Task[..., Any], seconds: float = 1.0) -> int:
    """Wait without a thread."""
    await asyncio.sleep(seconds)
    return os.getpid()


@shared_task(bind=True)
async def whoami_async(self: Task[..., Any]) -> dict[str, Any]:
    """Tell what a coroutine knows of itself before and after it waits, and in a thread that it asks for help."""
    before = [self.request.id, current_task.name]
    await asyncio.sleep(0.01)
    in_thread = await sync_to_async(lambda: [self.request.id, current_task.name])()
    return {"ids": [before, [self.request.id, current_task.name], in_thread], "thread": threading.current_thread().name}


@shared_task
async def count_results() -> int:
    """Use Django's ORM as coroutines do."""
    return await TaskResult.objects.acount()


@shared_task(bind=True, atomic=True)
async def insert_async(self: Task[..., Any], fails: bool = False) -> None:
    """Write a row in the transaction of the task."""

    def insert() -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO effects (task_id) VALUES (%s)", [self.request.id])

    await sync_to_async(insert)()
    if fails:
        raise ValueError("rolled back")


@shared_task(bind=True)
def where(self: Task[..., Any], seconds: float = 0.0) -> list[Any]:
    """Tell process, thread and the backend's connection, after a while."""
    time.sleep(seconds)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return [os.getpid(), threading.current_thread().name, id(connection.connection)]


@shared_task(bind=True)
async def wait_at_gate_async(self: Task[..., Any], directory: str) -> int:
    """Wait at a gate of this attempt's own; note a cancellation."""
    note("start", self)
    file = Path(directory, f"{self.request.id}-{self.request.attempt}")
    try:
        while not file.exists():
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        note("cancelled", self)
        raise
    note("end", self)
    return self.request.attempt


@shared_task(bind=True)
def wait_at_gate_revocable(self: Task[..., Any], file: str) -> int:
    note("start", self)
    wait_for(Path(file))
    return self.request.attempt


@shared_task
async def block_loop(seconds: float) -> None:
    """What a coroutine should not do."""
    time.sleep(seconds)


@shared_task(bind=True)
async def fail_async(self: Task[..., Any]) -> None:
    raise ValueError("kumquat")


@shared_task(bind=True, max_retries=2, default_retry_delay=0)
async def retry_async(self: Task[..., Any]) -> int:
    await asyncio.sleep(0)
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries


class Telling(Task[..., Any]):
    """Tells the journal what its handlers are told, and by whom."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note("before_start", self)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        TaskResult.objects.get(pk=task_id)  # stored before anybody is told
        note("on_success", self)


@shared_task(bind=True, base=Telling)
async def handled_async(self: Any) -> None:
    await asyncio.sleep(0)


@shared_task(bind=True, base=Telling)
def handled(self: Any) -> None:
    time.sleep(0)


def _tell(name: str) -> Any:
    def receiver(**named: Any) -> None:
        path = os.environ.get("TEST_SIGNALS")
        if path:
            with contextlib.suppress(OSError), open(path, "a") as file:
                file.write(f"{name} {os.getpid()}\n")

    return receiver


for _name in (
    *("worker_init", "worker_before_create_process", "worker_process_init", "worker_ready", "heartbeat_sent"),
    *("worker_shutting_down", "worker_process_shutdown", "worker_shutdown", "task_prerun", "task_success"),
):
    getattr(signals, _name).connect(_tell(_name), weak=False)
