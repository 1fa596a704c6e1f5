"""A site under test: real ``runworker`` processes on a fresh database, faults, and the accounting afterwards.

Nothing here trusts the worker's own word: what ran is read from a journal that the tasks write
(:mod:`tests.integration.jobs`), how it ended from the database.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from django.db import Error, connections

from django_tasks import AsyncResult, states
from django_tasks.models import Task, TaskResult
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.integration.jobs import JOURNAL, Entry, gate, read_journal
from tests.servers import is_alive

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
#: With these a dead worker is found out within three seconds, and a machine that stalls for one is not.
SHORT_LEASE: dict[str, Any] = {"WORKER_HEARTBEAT_INTERVAL": 0.5, "WORKER_LEASE": 2.0, "WORKER_RESCUE_INTERVAL": 0.5}
#: Seconds after which a wait fails: several times what a busy machine with two cores needs.
PATIENCE = 60.0


class Worker:
    """A ``runworker`` process: the supervisor, its children, and what they said."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )
        self._seen: set[psutil.Process] = set()

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self.process.pid

    def said(self) -> str:
        """Return everything that it wrote so far."""
        return self.log.read_text(errors="replace")

    def children(self) -> list[psutil.Process]:
        """Return the child processes that live now, oldest first."""
        with suppress(psutil.NoSuchProcess):
            found = [child for child in psutil.Process(self.pid).children() if is_alive(child)]
            self._seen.update(found)
            return sorted(found, key=lambda child: child.pid)
        return []

    def tree(self) -> list[psutil.Process]:
        """Return the supervisor and everything below it."""
        with suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(self.pid)
            return [supervisor, *supervisor.children(recursive=True)]
        return []

    def wait_until_it_says(self, text: str) -> None:
        """Wait for words in its log; an end without them is an error at once."""

        def said() -> bool:
            if text in self.said():
                return True
            if self.process.poll() is not None and text not in self.said():
                raise RuntimeError(f"the worker ended with {self.process.returncode}:\n{self.said()}")
            return False

        eventually(said, timeout=PATIENCE, message=f"the worker did not say {text!r}")

    def wait_for_children(self, count: int) -> list[psutil.Process]:
        """Wait until it has so many living children; return them. Its own end before that is an error at once."""

        def living() -> list[psutil.Process]:
            if self.process.poll() is not None:
                raise RuntimeError(f"the worker ended with {self.process.returncode}:\n{self.said()}")
            return found if len(found := self.children()) == count else []

        return eventually(living, timeout=PATIENCE, message=f"the worker has not {count} children")

    # Faults

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the supervisor alone; return once it is gone."""
        self.children()  # so that those who outlive it are known
        self.process.kill()
        self.process.wait(PATIENCE)

    def kill_tree(self) -> None:
        """SIGKILL to the supervisor and all below it, as if the power went."""
        family = self.tree()
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait(PATIENCE)
        eventually(lambda: not any(is_alive(member) for member in family), message="SIGKILL did not end them")

    def freeze(self) -> None:
        """SIGSTOP to the whole tree; the supervisor first, so that it replaces nobody."""
        for member in self.tree():
            member.suspend()

    def thaw(self) -> None:
        """Let a frozen tree go on."""
        for member in self.tree():
            member.resume()

    # The end

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.send(number)
        return self.wait()

    def wait(self, timeout: float = PATIENCE) -> int:
        """Return the exit code (negative: killed by that signal) once it ended by itself."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker did not end within {timeout:g} s:\n{self.said()}") from None

    def orphans(self) -> list[psutil.Process]:
        """Return the children seen earlier that still live."""
        return [child for child in self._seen if is_alive(child)]

    def close(self) -> None:
        """Leave nothing behind."""
        for member in {*self.tree(), *self._seen}:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.kill()
        self.process.wait(PATIENCE)


@dataclass(frozen=True)
class Account:
    """What became of everything that was sent."""

    #: Task id to final state.
    fates: dict[str, str]
    #: Task id to how often it was begun, and how often it came to its end.
    starts: Counter[str]
    ends: Counter[str]

    @property
    def reruns(self) -> int:
        """Starts beyond the first of each task."""
        return sum(self.starts.values()) - len(self.starts)

    @property
    def duplicates(self) -> int:
        """Ends beyond the first of each task."""
        return sum(self.ends.values()) - len(self.ends)


class Site:
    """A database, the workers on it, and the journal."""

    def __init__(self, database: TestDatabase, directory: Path) -> None:
        self.database = database
        self.directory = directory
        self.journal_path = directory / "journal"
        #: Files in here let tasks go on that wait for them.
        self.gates = directory / "gates"
        self.gates.mkdir()
        self.workers: list[Worker] = []

    # Workers

    def environ(self, **tasks_settings: Any) -> dict[str, str]:
        """Return the environment of a process of this site; settings are those of ``DJANGO_TASKS``."""
        tasks_settings.setdefault("IMPORTS", ["tests.integration.jobs"])
        return {
            **self.database.environ(**tasks_settings),
            JOURNAL: str(self.journal_path),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(self.directory)]),
            "PYTHONUNBUFFERED": "1",
        }

    def command(self, *options: str, concurrency: int = 2) -> list[str]:
        """Return the command line of a worker."""
        processes = [] if "solo" in options else ["-c", str(concurrency)]
        return [sys.executable, "-m", "tests.manage", "runworker", *processes, *options]

    def launch(
        self,
        *options: str,
        concurrency: int = 2,
        prefix: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        **tasks_settings: Any,
    ) -> Worker:
        """Start a worker and do not wait for it. ``prefix`` is a command that runs it, ``environ`` goes on top."""
        worker = Worker(
            [*prefix, *self.command(*options, concurrency=concurrency)],
            {**self.environ(**tasks_settings), **(environ or {})},
            self.directory / f"worker-{len(self.workers) + 1}.log",
        )
        self.workers.append(worker)
        return worker

    def start(
        self,
        *options: str,
        concurrency: int = 2,
        environ: Mapping[str, str] | None = None,
        **tasks_settings: Any,
    ) -> Worker:
        """Start a worker and wait until all its children are there."""
        worker = self.launch(*options, concurrency=concurrency, environ=environ, **tasks_settings)
        if "solo" in options:
            worker.wait_until_it_says("is ready.")
        else:
            worker.wait_for_children(concurrency)
        return worker

    def close(self) -> None:
        """End all workers, and print what they said: pytest shows it when the test failed."""
        for worker in self.workers:
            worker.close()
            print(f"--- {worker.log.name}\n{worker.said()}")
        print(f"--- journal\n{self.journal_path.read_text() if self.journal_path.exists() else '(none)'}")

    # What happened

    def journal(self, *events: str, task_id: str | None = None) -> list[Entry]:
        """Return the journal's lines, of these events and of one task if named."""
        return [
            entry
            for entry in read_journal(self.journal_path)
            if (not events or entry.event in events) and task_id in (None, entry.task_id)
        ]

    def wait_for_entries(self, count: int, *events: str, task_id: str | None = None) -> list[Entry]:
        """Wait until the journal has at least so many such lines; return them."""
        return eventually(
            lambda: found if len(found := self.journal(*events, task_id=task_id)) >= count else [],
            timeout=PATIENCE,
            message=f"the journal has not {count} lines of {events or 'any event'}",
        )

    def wait_for_start(self, result: AsyncResult[Any], nth: int = 1) -> Entry:
        """Wait until the task has begun for the nth time; return that line."""
        return self.wait_for_entries(nth, "start", task_id=result.id)[nth - 1]

    def open_gate(self, start: Entry) -> None:
        """Let a task go on that waits at the gate, in the run that began with this line."""
        gate(self.gates, start.task_id, start.attempt).touch()

    def wait_for(self, condition: Callable[[], T], *, timeout: float = PATIENCE, message: str = "") -> T:
        """Wait as ``eventually`` does; a database that does not answer counts as "not yet"."""

        def asked() -> T:
            try:
                return condition()
            except Error as error:
                connections[self.database.alias].close()
                raise AssertionError(f"the database does not answer: {error}") from error

        return eventually(asked, timeout=timeout, message=message)

    def states(self) -> dict[str, str]:
        """Return the state of every task there is."""
        # The to-do list first: tasks move from there to the ledger, so none is missed.
        waiting = {str(id_): state for id_, state in Task.objects.values_list("pk", "state")}
        return waiting | {str(id_): state for id_, state in TaskResult.objects.values_list("pk", "state")}

    def account(
        self, sent: Iterable[AsyncResult[Any]], *, unknown: Iterable[AsyncResult[Any]] = (), timeout: float = PATIENCE
    ) -> Account:
        """Wait until nothing is left to do, then check that everything sent has exactly one fate, and nothing else has.

        ``unknown`` are calls of which the sender was not told whether they were stored. A success of a task that
        returns its attempt must come from an attempt that the journal saw ending.
        """
        ids = {result.id for result in sent}
        self.wait_for(lambda: Task.objects.count() == 0, timeout=timeout, message="tasks are stuck")
        ledger = {str(row.pk): row for row in TaskResult.objects.all()}
        assert not ids - ledger.keys(), f"lost: {ids - ledger.keys()}"
        ghosts = ledger.keys() - ids - {result.id for result in unknown}
        assert not ghosts, f"never sent: {ghosts}"
        ended = {(entry.task_id, entry.attempt) for entry in self.journal("end")}
        for id_, row in ledger.items():
            if row.state == states.SUCCESS and self.journal_path.exists() and row.result is not None:
                assert (id_, int(row.result)) in ended, f"{id_} tells a result that no attempt produced: {row.result}"
        return Account(
            {id_: row.state for id_, row in ledger.items()},
            Counter(entry.task_id for entry in self.journal("start")),
            Counter(entry.task_id for entry in self.journal("end")),
        )
