"""``manage.py tasks``: pause, resume, limits, and what is chosen by name, queue or tag."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_tasks import limits, states
from django_tasks.models import Limit, Task, TaskResult
from tests.commands.conftest import Command
from tests.inprocess import Worker
from tests.integration import limited_jobs
from tests.integration.jobs import JOURNAL

pytestmark = pytest.mark.databases("sqlite", "postgresql")


def test_a_queue_is_paused_and_resumed(tasks: Command) -> None:
    said = tasks("pause", "mail", "--reason", "provider is down", "--until", "30m")
    assert said.code == 0
    assert said.out.startswith("The queue mail is paused until ")
    limit = Limit.objects.get()
    assert (limit.kind, limit.name, limit.pause_reason) == ("queue", "mail", "provider is down")
    assert limit.paused_until is not None
    data = tasks("limits", "--json").data["limits"]
    assert [(one["name"], one["paused"], one["pause_reason"]) for one in data] == [("mail", True, "provider is down")]
    assert "paused until" in tasks("limits").out
    assert tasks("resume", "mail", "--json").data == {"kind": "queue", "name": "mail", "resumed": True}
    assert tasks("resume", "mail").code == 1
    assert not Limit.objects.exists()


def test_a_task_is_paused_by_its_name(tasks: Command) -> None:
    data = tasks("pause", "--task", "app.tasks.mail", "--json").data
    assert (data["kind"], data["name"], data["paused_until"]) == ("task", "app.tasks.mail", None)
    assert tasks("resume", "--task", "app.tasks.mail").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("pause",),
        ("pause", "mail", "--task", "x"),
        ("resume",),
        ("pause", "no spaces"),
        ("pause", "mail", "--until", "soon"),
        ("pause", "mail", "--until", "2001-01-01"),
        ("revoke",),
        ("revoke", "--name", "x", "some-id"),
        ("revoke", "--queue", "no spaces"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(tasks: Command, words: tuple[str, ...]) -> None:
    assert tasks(*words).code != 0
    assert not Limit.objects.exists()


def test_limits_are_told_in_words(tasks: Command) -> None:
    limits.declare([limited_jobs.paced, limited_jobs.two_at_a_time, limited_jobs.of_a_tenant])
    limits.change(Limit.QUEUE, "pdf", rate="5/h", per_worker=True, concurrency=3, per_key=True)
    limited_jobs.two_at_a_time.delay(0.1)
    said = tasks("limits").out
    for words in (
        "rate 10/s",
        "at most 2 at a time",
        "keys take turns",
        "rate 5/h per worker per key, at most 3 at a time per key, changed by people",
    ):
        assert words in said
    [row] = [one for one in tasks("limits", "--json").data["limits"] if one["concurrency"] == 2]
    assert (row["running"], row["waiting"]) == (0, 1)


def test_tasks_are_found_and_cancelled_by_tag(tasks: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOURNAL, str(tmp_path / "journal"))
    limits.declare([limited_jobs.two_at_a_time])
    first = limited_jobs.two_at_a_time.apply_async((0.0,), tags=["vip", "x"])
    second = limited_jobs.two_at_a_time.apply_async((0.0,), tags=["x"])
    limited_jobs.two_at_a_time.delay(0.0)
    Worker().step()
    assert {row["id"] for row in tasks("list", "--tag", "x", "--json").data["tasks"]} == {first.id, second.id}
    assert [row["id"] for row in tasks("list", "--tag", "vip", "--state", "SUCCESS", "--json").data["tasks"]] == [
        first.id
    ]
    assert tasks("show", first.id, "--json").data["tags"] == ["vip", "x"]
    assert tasks("revoke", "--tag", "x", "--json").data == {"tag": "x", "found": 1}
    assert second.state == states.REVOKED
    assert (Task.objects.count(), TaskResult.objects.count()) == (1, 2)
    assert "1 cancelled" in tasks("revoke", "--name", limited_jobs.two_at_a_time.name, "--queue", "default").out
