"""Tasks of every kind, sent and run in one process, with a journal of what it was told; and the account of them.

The journal lies outside the database: a line is written when a call has returned, so what it says was promised.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from django.db import DatabaseError, connection, transaction

from django_tasks import Task, shared_task
from django_tasks.backends import get_broker
from django_tasks.backends.base import Queues, WorkerInfo
from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.message import Holder
from django_tasks.exceptions import OperationalError
from django_tasks.models import Task as WaitingTask
from django_tasks.models import TaskResult
from django_tasks.worker.board import Board
from django_tasks.worker.child import Child
from django_tasks.worker.puller import IDLE, WAKE, ChildOptions
from django_tasks.worker.slots import Slot

T = TypeVar("T")

ALL = Queues()
#: A table of the site: which task left which mark, as often as it ran.
EFFECTS = "CREATE TABLE crash_effect (task varchar(36) NOT NULL, kind varchar(20) NOT NULL)"
#: Seconds that nothing here takes.
PATIENCE = 60.0


def mark(task: Task[..., Any]) -> None:
    """Leave a mark on the task's own connection."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO crash_effect (task, kind) VALUES (%s, %s)", [task.request.id, task.name])


@shared_task(bind=True, name="plain")
def plain(self: Task[..., Any], number: int) -> int:
    mark(self)
    return number + 1


@shared_task(bind=True, name="silent", ignore_result=True)
def silent(self: Task[..., Any]) -> None:
    mark(self)


@shared_task(bind=True, name="failing")
def failing(self: Task[..., Any]) -> None:
    mark(self)
    raise ValueError("as it should")


@shared_task(bind=True, name="trying")
def trying(self: Task[..., Any]) -> str:
    mark(self)
    if self.request.retries < 2:
        raise self.retry(countdown=0.01, max_retries=5)
    return "at last"


@shared_task(bind=True, name="whole", atomic=True)
def whole(self: Task[..., Any]) -> str:
    mark(self)
    return "whole"


@shared_task(bind=True, name="parent", atomic=True)
def parent(self: Task[..., Any]) -> str:
    mark(self)
    return str(child.delay().id)


@shared_task(bind=True, name="child")
def child(self: Task[..., Any]) -> None:
    mark(self)


@shared_task(bind=True, name="once", acks_late=False)
def once(self: Task[..., Any]) -> None:
    mark(self)


@shared_task(bind=True, name="cancelled")
def cancelled(self: Task[..., Any]) -> None:
    mark(self)


@shared_task(bind=True, name="together")
def together(self: Task[..., Any]) -> None:
    mark(self)


@shared_task(bind=True, name="limited", concurrency=1)
def limited(self: Task[..., Any]) -> None:
    mark(self)


class Journal:
    """Lines of facts in a file that no crash of the process takes back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, fact: str, *values: object) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, (" ".join([fact, *map(str, values)]) + "\n").encode())
        os.close(descriptor)

    def read(self, fact: str) -> list[str]:
        """Return what was written of this kind."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [line.partition(" ")[2] for line in lines if line.partition(" ")[0] == fact]


# Sending and running --------------------------------------------------------------------------------------------------


def send_all(journal: Journal) -> None:
    """Send everything; whoever hears of an error does not know what became of his call, and goes on."""
    for number in range(4):
        send(journal, plain, number)
    for task in (silent, silent, failing, failing, trying, trying, whole, whole, parent, once, once, limited, limited):
        send(journal, task)
    send(journal, plain, 99, countdown=0.05)
    for _ in range(2):
        if revoked := send(journal, cancelled):
            with contextlib.suppress(OperationalError):
                get_broker().revoke([revoked])
                journal.write("revoked", revoked)
    sent = []
    with contextlib.suppress(OperationalError, DatabaseError):
        with transaction.atomic():
            sent = [together.delay().id for _ in range(3)]
        for one in sent:
            journal.write("accepted", one)
    with contextlib.suppress(OperationalError):
        get_broker().admit(ALL, free=1)


def send(journal: Journal, task: Task[..., Any], *args: Any, **options: Any) -> str | None:
    """Send one call; return its id if that is known."""
    with contextlib.suppress(OperationalError):
        task_id = str(task.apply_async(args, **options).id)
        journal.write("accepted", task_id)
        return task_id
    return None


def work(journal: Journal) -> None:
    """Be a worker with one slot, until nothing is left to do."""
    broker = get_broker()
    info = WorkerInfo("crashing@here", "here", os.getpid(), "prefork", 1, ALL, "test", PATIENCE)
    holder = Holder(insist(lambda: broker.register(info)), 1, info.name)
    ours, theirs = socket.socketpair()
    slot = Slot()
    running = Child(holder, slot, theirs, ChildOptions(ALL, most_claims=4), board=Board())
    threading.Thread(target=supervise, args=(ours, running), daemon=True).start()
    running.run()
    if held := insist(lambda: broker.held(holder.worker)):
        journal.write("problem", f"a worker that has nothing to do holds {held}")
    insist(lambda: broker.unregister(holder.worker))


def insist(call: Callable[[], T]) -> T:
    """Do it, as a supervisor does, until it is known to be done."""
    while True:
        with contextlib.suppress(OperationalError):
            return call()


def supervise(channel: socket.socket, running: Child) -> None:
    """Wake the child when something is due, or let through; stop it when nothing will be. On a broker of its own."""
    broker = DatabaseBroker()
    while word := channel.recv(64):
        if not word.endswith(IDLE):
            continue
        while not (survey := broker.survey(ALL)).due and (survey.limited or survey.next_due is not None):
            if not survey.limited or not broker.admit(ALL, free=1).admitted:
                time.sleep(min(survey.next_due or 0.01, 0.01))
        if not survey.due:
            running.stop()
            broker.close()
        channel.send(WAKE)


# Accounting -----------------------------------------------------------------------------------------------------------


def problems(journal: Journal, crash: str) -> list[str]:
    """Return what is wrong after everything was run again; each task must have exactly one fate, and the right one.

    ``crash`` tells how the process was struck: empty, ``before``, ``after`` or ``cut``.
    """
    found = [f"{one.name} {one.pk} is stuck: {one.state}" for one in WaitingTask.objects.all()]
    with connection.cursor() as cursor:
        cursor.execute("SELECT task, kind FROM crash_effect")
        marks = Counter((task, kind) for task, kind in cursor.fetchall())
    lines = {str(one.pk): one for one in TaskResult.objects.all()}
    for task_id in journal.read("accepted"):
        if task_id not in lines and (task_id, "silent") not in marks:
            found.append(f"{task_id} is lost")
    for task_id, line in lines.items():
        runs = marks[task_id, line.name]
        found += [f"{line.name} {task_id}: {fault}" for fault in faults_of(line, runs, journal, crash)]
    names = Counter(line.name for line in lines.values())
    if names["together"] not in (0, 3):
        found.append(f"{names['together']} of a transaction's three tasks")
    parents = [line for line in lines.values() if line.name == "parent" and line.state == "SUCCESS"]
    if names["child"] != len(parents) or any(json.loads(line.result or "") not in lines for line in parents):
        found.append(f"{names['child']} children of {len(parents)} parents")
    return found


def faults_of(line: TaskResult, runs: int, journal: Journal, crash: str) -> list[str]:
    """Return what is wrong with one line of the ledger whose body left so many marks."""
    if crash == "cut" and line.state == "FAILURE" and line.exception.startswith("OperationalError"):
        # The body's own connection was cut: its failure is the truth, and an atomic one left nothing.
        return ["left marks"] if runs and line.name in ("whole", "parent") else []
    again = 1 if crash else 0
    faults = []
    states = {"failing": {"FAILURE"}, "cancelled": {"REVOKED"}}.get(line.name, {"SUCCESS"})
    least, most = 1, 1 + again
    if line.name == "trying":
        least, most = 3, 3 + again
        if line.retries != 2:
            faults.append(f"{line.retries} retries")
    elif line.name in ("whole", "parent"):
        most = 1
    elif line.name == "once":
        most = 1
        if crash and line.state == "FAILURE":
            states, least = {"FAILURE"}, 0
            if "WorkerLostError" not in line.exception:
                faults.append(f"failed with {line.exception}")
    elif line.name == "cancelled":
        if str(line.pk) in journal.read("revoked"):
            most = 0
        else:
            states = {"REVOKED", "SUCCESS"}
        least = 0 if line.state == "REVOKED" else 1
    if line.state not in states:
        faults.append(f"ended as {line.state} {line.exception}")
    if not least <= runs <= most:
        faults.append(f"left {runs} marks")
    return faults
