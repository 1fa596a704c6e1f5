"""Tasks that leave a trace outside of the system under test: a line in a journal when they start and when they end.

Workers load this module by ``IMPORTS``; the journal is the file that the environment's ``TEST_JOURNAL`` names.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from django.db import OperationalError, connection, transaction

from django_tasks import Task, shared_task
from django_tasks.utils.log import get_task_logger

#: Names the journal's file in the environment of a worker.
JOURNAL = "TEST_JOURNAL"
#: Seconds between looks at a gate, and after which nobody waits for it any more.
LOOK, PATIENCE = 0.01, 60.0

logger = get_task_logger(__name__)
_leaked: list[bytes] = []


class Entry(NamedTuple):
    """A line of the journal; ``at`` is ``time.monotonic()``, which all processes of a machine share."""

    event: str
    task_id: str
    attempt: int
    pid: int
    at: float


def note(event: str, task: Task[..., Any]) -> None:
    """Append one line to the journal. A line is one write to a file in append mode, so none is torn or lost."""
    request = task.request
    line = f"{event} {request.id} {request.attempt} {os.getpid()} {time.monotonic()}\n"
    descriptor = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read_journal(path: Path) -> list[Entry]:
    """Return the lines so far."""
    lines = path.read_text().splitlines() if path.exists() else []
    fields = [line.split() for line in lines]
    return [Entry(event, task_id, int(attempt), int(pid), float(at)) for event, task_id, attempt, pid, at in fields]


def gate(directory: str | Path, task_id: str, attempt: int) -> Path:
    """Return the file for which one attempt of a task waits."""
    return Path(directory, f"{task_id}-{attempt}")


def wait_for(file: Path) -> None:
    """Return once the file exists."""
    end = time.monotonic() + PATIENCE
    while not file.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"nobody made {file}")
        time.sleep(LOOK)


def _work(task: Task[..., Any], seconds: float) -> int:
    note("start", task)
    time.sleep(seconds)
    note("end", task)
    return task.request.attempt


@shared_task(bind=True)
def work(self: Task[..., Any], seconds: float = 0.0) -> int:
    """Return the attempt that did it, so that a result tells whose it is."""
    return _work(self, seconds)


@shared_task(bind=True, acks_late=False)
def work_at_most_once(self: Task[..., Any], seconds: float = 0.0) -> int:
    return _work(self, seconds)


@shared_task(bind=True)
def wait_at_gate(self: Task[..., Any], directory: str) -> int:
    """Wait at a gate of this attempt's own."""
    note("start", self)
    wait_for(gate(directory, str(self.request.id), self.request.attempt))
    note("end", self)
    return self.request.attempt


@shared_task(bind=True, atomic=True)
def insert_atomically(self: Task[..., Any], seconds: float = 0.0) -> int:
    """Write a row, and commit it together with the result."""
    note("start", self)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO effects (task_id) VALUES (%s)", [self.request.id])
    time.sleep(seconds)
    note("end", self)
    return self.request.attempt


@shared_task(bind=True)
def kill_own_process(self: Task[..., Any]) -> None:
    note("start", self)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(bind=True)
def block_interpreter(self: Task[..., Any], seconds: float) -> int:
    """Sleep in C without letting any other thread of this process run Python."""
    note("start", self)
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    note("end", self)
    return self.request.attempt


@shared_task(bind=True)
def leak(self: Task[..., Any], mebibytes: int) -> int:
    """Take memory and never give it back."""
    note("start", self)
    _leaked.append(os.urandom(1024) * 1024 * mebibytes)
    note("end", self)
    return self.request.attempt


@shared_task(bind=True)
def start_grandchild(self: Task[..., Any], directory: str) -> int:
    """Start a process, write its id into the directory, and wait at a gate of this attempt's own."""
    note("start", self)
    process = subprocess.Popen(["sleep", "600"])
    Path(directory, "grandchild").write_text(str(process.pid))
    wait_for(gate(directory, str(self.request.id), self.request.attempt))
    note("end", self)
    return process.pid


@shared_task(bind=True)
def tell_progress(self: Task[..., Any], directory: str, in_transaction: bool) -> int:
    """Tell of two steps; the second waits for the gate ``1``, the end for the gate ``2``."""
    note("start", self)
    if in_transaction:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("UPDATE django_tasks_worker SET version = version")  # holds a write lock from here on
            self.update_state(state="PROGRESS", meta={"done": 1})
            note("told", self)
            wait_for(Path(directory, "1"))
    else:
        self.update_state(state="PROGRESS", meta={"done": 1})
        note("told", self)
        wait_for(Path(directory, "1"))
    note("committed", self)
    self.update_state(state="PROGRESS", meta={"done": 2})
    wait_for(Path(directory, "2"))
    note("end", self)
    return self.request.attempt


@shared_task(bind=True)
def cut_every_connection(self: Task[..., Any]) -> int:
    """Have PostgreSQL end all connections to this database, the task's own at last, and take no notice."""
    note("start", self)
    with suppress(OperationalError), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    note("end", self)
    return self.request.attempt


@shared_task(bind=True)
def count_workers(self: Task[..., Any]) -> int:
    """Read from the database."""
    note("start", self)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM django_tasks_worker")
    note("end", self)
    return self.request.attempt


@shared_task
def say(*words: str) -> None:
    for word in words:
        logger.info("The word is %s", word)


@shared_task
def echo(value: Any) -> Any:
    return value


@shared_task
def repeat(text: str, times: int) -> str:
    return text * times
