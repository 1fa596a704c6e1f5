"""Tasks that stand still until there is a file ``go`` when they begin. Workers load this module by ``IMPORTS``."""

from __future__ import annotations

import asyncio
import ctypes
from pathlib import Path
from typing import Any

from django_tasks import Task, shared_task
from tests.integration.jobs import note


@shared_task(bind=True)
def hang_in_c(self: Task[..., Any], directory: str) -> int:
    """Wait in C for what never comes, and let no other thread of this process run Python."""
    note("start", self)
    if not Path(directory, "go").exists():
        mutex = ctypes.create_string_buffer(128)
        for _ in range(2):
            ctypes.PyDLL(None).pthread_mutex_lock(mutex)
    note("end", self)
    return self.request.attempt


@shared_task(bind=True)
async def await_nothing(self: Task[..., Any], directory: str) -> int:
    """Wait in a coroutine for what never comes."""
    note("start", self)
    if not Path(directory, "go").exists():
        await never()
    note("end", self)
    return self.request.attempt


async def never() -> None:
    await asyncio.get_running_loop().create_future()
