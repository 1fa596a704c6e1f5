"""Dying before or after statement k: the process that ``test_crash_points`` starts, and that forks one for each point.

``python -m tests.backends.crashing JOURNALS EVERY`` works on the database of ``DATABASE_URL``, prints the number of
statements of a whole run, then a line for each point: ``{"point": ["after", 7], "died": true, "problems": []}``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django

django.setup()

from django.db import OperationalError, connection, connections  # noqa: E402
from django.db.backends.base.base import BaseDatabaseWrapper  # noqa: E402
from django.db.backends.sqlite3.base import SQLiteCursorWrapper  # noqa: E402

from django_tasks import limits  # noqa: E402
from django_tasks.backends import close_all, get_broker  # noqa: E402
from django_tasks.models import Task, TaskResult, Worker  # noqa: E402
from tests.backends import crash_workload as workload  # noqa: E402
from tests.backends.bench import DatabaseBench  # noqa: E402

#: How a process ends that was made to die.
DIED = 77


class CrashPoint:
    """Counts what the main thread sends to the database, and strikes at one of them.

    ``before`` and ``after`` end the process; ``cut`` breaks the connection after the statement took effect, so that its
    sender does not know.
    """

    def __init__(self, how: str, at: int) -> None:
        self.how, self.at = how, at
        self.count = 0
        #: The narrow places: every statement of Django and of the engine passes a driver's cursor, commits do not.
        self._watch(SQLiteCursorWrapper, "execute")
        self._watch(SQLiteCursorWrapper, "executemany")
        self._watch(BaseDatabaseWrapper, "_commit")
        if connection.vendor == "postgresql":
            import psycopg

            self._watch(psycopg.Cursor, "execute")
            self._watch(psycopg.Cursor, "executemany")

    def _watch(self, owner: type[Any], name: str) -> None:
        call = getattr(owner, name)

        def watched(place: Any, *args: Any, **options: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return call(place, *args, **options)
            self.count += 1
            if self.count != self.at:
                return call(place, *args, **options)
            if self.how == "before":
                os._exit(DIED)
            value = call(place, *args, **options)
            if self.how == "after":
                os._exit(DIED)
            self._cut(place)
            return value

        setattr(owner, name, watched)

    def _cut(self, place: Any) -> None:
        import psycopg

        place.connection.close()
        # A cursor's errors are translated by Django, a wrapper's are its own.
        error = OperationalError if isinstance(place, BaseDatabaseWrapper) else psycopg.OperationalError
        raise error("the connection was cut")


def in_a_child(work: Callable[[], None]) -> int:
    """Fork, do the work there, and return how the child ended."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def prepare() -> None:
    """Empty the tables."""
    with connection.cursor() as cursor:
        for model in (Task, TaskResult, Worker):
            cursor.execute(f"DELETE FROM {model._meta.db_table}")
        cursor.execute("DELETE FROM crash_effect")
    limits.declare([workload.limited])
    connections.close_all()


def run(journal: workload.Journal, how: str, at: int) -> None:
    """Send and run everything, with one crash on the way."""
    prepare()
    point = CrashPoint(how, at)
    workload.send_all(journal)
    workload.work(journal)
    journal.write("statements", point.count)


def recover(journal: workload.Journal, crash: str) -> None:
    """A day later, another worker takes back what was lost and does what is left; then account for everything."""
    DatabaseBench("default").let_pass(86_400)
    get_broker().rescue(max_losses=3)
    workload.work(journal)
    for problem in workload.problems(journal, crash):
        journal.write("problem", problem)
    journal.write("accounted")
    close_all()


def strike(directory: Path, how: str, at: int) -> dict[str, Any]:
    """Crash at one point; return what became of everything."""
    journal = workload.Journal(directory / f"{how}-{at}")
    died = in_a_child(lambda: run(journal, how, at))
    in_a_child(lambda: recover(journal, how if at else ""))
    found = journal.read("problem")
    if died not in (0, DIED):
        found.append(f"the workload ended with {died}")
    if not journal.read("accounted"):
        found.append("the recovery failed")
    return {"point": [how, at], "died": died == DIED, "problems": found, "statements": journal.read("statements")}


def points(statements: int, every: int) -> Iterator[tuple[str, int]]:
    """Yield the crash points: every so many statements, each kind of crash at others."""
    kinds = ["before", "after"]
    if connection.vendor == "postgresql":  # there is no connection to a file that could break
        kinds.append("cut")
    for at in range(1, statements + 1):
        for shift, how in enumerate(kinds):
            if (at + shift) % every == 0:
                yield how, at


def main(directory: str, every: str) -> None:
    """Crash everywhere and print what was found."""
    whole = strike(Path(directory), "after", 0)
    print(json.dumps(whole), flush=True)
    for how, at in points(int(whole["statements"][0]), int(every)):
        print(json.dumps(strike(Path(directory), how, at)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
