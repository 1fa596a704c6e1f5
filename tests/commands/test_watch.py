"""``manage.py tasks watch``: tasks until they are done, queues until they are empty; for people and for programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from typing import Any

import pytest

from django_tasks import states
from django_tasks.management import watching
from django_tasks.models import Task, TaskResult
from tests.commands.conftest import ROOT, Command
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.rows import ago, failure, finished, saved, waiting

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What happens between two looks, one after the other: functions without arguments."""
    steps: list[Any] = []
    monkeypatch.setattr(watching, "sleep", lambda seconds: steps.pop(0)())
    return steps


def end(task: Task, state: str = states.SUCCESS) -> None:
    """Let a task end, as a worker would."""
    key = task.pk
    task.delete()
    saved([finished(state, id=key, name=task.name)])


def test_tasks_are_watched_until_they_are_done(tasks: Command, looks: list[Any]) -> None:
    progress = json.dumps({"current": 3, "total": 12})
    [task] = saved([waiting(state=states.STARTED, started_at=ago(5), custom_state="PROGRESS", meta=progress)])
    [done] = saved([finished()])
    key = task.pk
    looks += [lambda: None, lambda: end(task)]
    said = tasks("watch", key, done.pk)
    assert said.code == 0
    lines = [line.split(maxsplit=1)[1] for line in said.out.splitlines()]
    assert lines == [
        f"{key}  PROGRESS  3/12 (25%)  {task.name}",
        f"{done.pk}  SUCCESS  {done.name}",
        f"{key}  SUCCESS  {task.name}",
    ], "what has not changed is not told again"


def test_what_failed_or_is_unknown_is_a_problem(tasks: Command) -> None:
    [bad] = saved([failure("lost\x1b[31m")])
    said = tasks("watch", bad.pk, "never-sent")
    assert said.code == 1
    assert "ValueError: lost\\x1b[31m" in said.out
    assert "never-sent  UNKNOWN" in said.out


def test_a_queue_is_watched_until_it_is_empty(tasks: Command, looks: list[Any]) -> None:
    [first, _second] = saved([waiting(queue="mail"), waiting(queue="other")])
    key = first.pk
    looks += [lambda: Task.objects.filter(pk=first.pk).update(state=states.STARTED, started_at=ago(1))]
    looks += [lambda: end(first)]
    said = tasks("watch", "--queue", "mail", "--until-empty", "--json")
    documents = [json.loads(line) for line in said.out.splitlines()]
    assert [[one["waiting"], one["running"]] for document in documents for one in document["queues"]] == [
        [1, 0], [0, 1], [0, 0],
    ]  # fmt: skip
    assert [one["id"] for one in documents[1]["tasks"]] == [str(key)]
    assert TaskResult.objects.count() == 1


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["x", "--queue", "mail"], "are for queues"),
        (["--every", "0"], "seconds from 0.1 to 3600"),
        (["--queue", "no queue"], "argument --queue"),
    ],
)
def test_wrong_usage_is_told(tasks: Command, words: list[str], problem: str) -> None:
    assert problem in tasks("watch", *words).err


def test_on_a_terminal_it_is_a_live_table(database: TestDatabase) -> None:
    pytest.importorskip("rich")
    progress = json.dumps({"current": 1, "total": 2})
    [task] = saved([waiting(state=states.STARTED, started_at=ago(5), name="[bold]shop.tasks.report", meta=progress)])
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tests.manage", "tasks", "watch", str(task.pk), "--every", "0.2"]
    environment = {**database.environ(), "TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    seen = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(ours, 65_536):
                seen.extend(chunk)
        except OSError:  # the other end is closed: nobody writes any more
            pass

    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        reader = threading.Thread(target=read)
        reader.start()
        eventually(lambda: b"1/2 (50%)" in seen)
        assert b"[bold]shop.tasks.report" in seen, "names are no markup"
        end(task)
        assert process.wait(60) == 0
        reader.join(10)
    os.close(ours)
    assert b"SUCCESS" in seen
