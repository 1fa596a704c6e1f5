"""Tasks that take longer than they may, each in a way of its own. Workers load this module by ``IMPORTS``."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django_tasks import Task, shared_task
from django_tasks.exceptions import SoftTimeLimitExceeded
from tests.integration.jobs import note, wait_for

#: Seconds after which a task ends that nobody ended.
FAR = 40.0


def sleep_in_c() -> None:
    """Hold the interpreter's lock all the while."""
    ctypes.PyDLL(None).usleep(int(FAR * 1_000_000))


def swallow_everything() -> None:
    """Keep the processor busy, whatever is raised."""
    end = time.monotonic() + FAR
    while time.monotonic() < end:
        try:
            while time.monotonic() < end:
                pass
        except BaseException:  # noqa: S112 - that is the point
            continue


def wait_on_a_socket() -> None:
    """Read from a peer that says nothing."""
    ours, _theirs = socket.socketpair()
    ours.settimeout(FAR)
    ours.recv(1)


def sleep() -> None:
    """As people do."""
    time.sleep(FAR)


WAYS: dict[str, Callable[[], None]] = {
    way.__name__: way for way in (sleep_in_c, swallow_everything, wait_on_a_socket, sleep)
}


@shared_task(bind=True, time_limit=1, acks_late=True)
def overrun(self: Task[..., Any], way: str) -> None:
    note("start", self)
    WAYS[way]()
    note("end", self)


@shared_task(bind=True)
def take(self: Task[..., Any], way: str) -> list[float | None]:
    """Take long, in some way; the limits are the call's. Return them."""
    note("start", self)
    WAYS[way]()
    note("end", self)
    return list(self.request.timelimit)


@shared_task(bind=True)
def tidy_up(self: Task[..., Any]) -> str:
    """Notice the soft limit and end in order."""
    note("start", self)
    try:
        time.sleep(FAR)
    except SoftTimeLimitExceeded as error:
        return f"tidied up {type(error).__name__}"
    return "nothing was raised"


@shared_task(bind=True)
def retry_when_late(self: Task[..., Any]) -> list[Any]:
    """Take long once; tell the limits and the retries."""
    if self.request.retries == 0:
        try:
            time.sleep(FAR)
        except SoftTimeLimitExceeded as error:
            raise self.retry(exc=error, countdown=0) from error
    return [list(self.request.timelimit), self.request.retries]


@shared_task(bind=True)
def count_for(self: Task[..., Any], seconds: float) -> str:
    """Run Python all the while."""
    note("start", self)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    note("end", self)
    return threading.current_thread().name


@shared_task(bind=True)
def tell_limits(self: Task[..., Any]) -> list[float | None]:
    return list(self.request.timelimit)


@shared_task(bind=True)
def tell_alarm(self: Task[..., Any]) -> list[Any]:
    """Tell what is left of the alarm clock of a task before."""
    return [signal.getitimer(signal.ITIMER_REAL)[0], signal.getsignal(signal.SIGALRM) == signal.SIG_DFL]


@shared_task(bind=True, time_limit=1)
def start_families(self: Task[..., Any], directory: str) -> None:
    """Start two processes, one of them in a session of its own, write their ids into the directory, and stay."""
    note("start", self)
    processes = [subprocess.Popen(["sleep", "600"], start_new_session=apart) for apart in (False, True)]
    Path(directory, "family").write_text(" ".join(str(process.pid) for process in processes))
    time.sleep(FAR)


class Telling(Task[..., Any]):
    """Tells the journal of its failure."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.push_request(id=task_id, attempt=0)
        note(f"on_failure:{type(exc).__name__}", self)
        self.pop_request()


@shared_task(bind=True, base=Telling, time_limit=1)
def overrun_and_tell(self: Any) -> None:
    time.sleep(FAR)


@shared_task(bind=True)
async def asleep(self: Task[..., Any], seconds: float = FAR) -> list[float | None]:
    """Wait without a thread."""
    note("start", self)
    await asyncio.sleep(seconds)
    note("end", self)
    return list(self.request.timelimit)


@shared_task(bind=True)
async def tidy_up_async(self: Task[..., Any]) -> str:
    """Notice the soft limit at the ``await``."""
    note("start", self)
    try:
        await asyncio.sleep(FAR)
    except SoftTimeLimitExceeded as error:
        await asyncio.sleep(0.01)
        return f"tidied up {type(error).__name__}"
    return "nothing was raised"


@shared_task(bind=True)
async def swallow_everything_async(self: Task[..., Any]) -> None:
    """Stay, whatever is raised."""
    note("start", self)
    end = time.monotonic() + FAR
    while time.monotonic() < end:
        try:
            await asyncio.sleep(FAR)
        except BaseException:  # noqa: S112 - that is the point
            continue


@shared_task(bind=True)
def hold(self: Task[..., Any], file: str) -> int:
    """Wait for a file."""
    note("start", self)
    wait_for(Path(file))
    note("end", self)
    return self.request.attempt
