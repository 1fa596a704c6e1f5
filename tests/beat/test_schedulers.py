"""Celery's names: schedulers, entries and the service."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_tasks import beat as package
from django_tasks import signals
from django_tasks.beat import DatabaseScheduler, ModelEntry, ScheduleEntry, Scheduler, Service, beat_nodename, history
from django_tasks.beat.presence import TIDY_EVERY, Presence
from django_tasks.dashboard import database_now
from django_tasks.models import Beat, PeriodicRun, PeriodicTask, Task
from django_tasks.schedules import schedule
from django_tasks.worker import health
from tests.beat.clock import OneBeat
from tests.databases import TestDatabase
from tests.eventually import eventually

pytestmark = pytest.mark.databases("sqlite")

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def test_celery_s_names_are_there() -> None:
    assert all(hasattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError):
        package.PersistentScheduler  # noqa: B018 - asking is the test
    assert beat_nodename().startswith("beat@")


def test_a_scheduler_in_memory_sends_what_is_due_and_says_when_to_come_back(database: TestDatabase) -> None:
    scheduler = Scheduler(lazy=True)
    entry = scheduler.add(
        name="a", task="tests.app.tasks.add", schedule=60, args=(1,), kwargs={"y": 2}, options={"queue": "slow"},
        last_run_at=LONG_AGO,
    )  # fmt: skip
    assert isinstance(entry, ScheduleEntry)
    assert scheduler.schedule["a"] is entry
    assert scheduler.tick() == 0
    assert 0 < scheduler.tick() <= scheduler.max_interval
    assert Task.objects.get().queue == "slow"
    after = scheduler.schedule["a"]
    assert (after.total_run_count, after.options) == (1, {"queue": "slow"})
    assert after.last_run_at > LONG_AGO


def test_a_database_scheduler_makes_rows_and_sends_them(database: TestDatabase) -> None:
    scheduler = DatabaseScheduler(lazy=True)
    entry = scheduler.add(name="a", task="tests.app.tasks.add", schedule=60, args=(1,), options={"queue": "slow"})
    assert isinstance(entry, ModelEntry)
    assert PeriodicTask.objects.get(name="a").queue == "slow"
    assert 0 < scheduler.tick() <= 4
    assert not scheduler.schedule["a"].is_due().is_due
    PeriodicTask.objects.update(next_run_at=LONG_AGO)
    assert scheduler.schedule["a"].is_due().is_due
    assert scheduler.tick() == 0
    assert Task.objects.get().name == "tests.app.tasks.add"
    assert scheduler.schedule["a"].total_run_count == 1


def test_a_scheduler_sleeps_no_longer_than_until_the_next_run(beat: OneBeat) -> None:
    beat.row(60)
    scheduler = DatabaseScheduler(lazy=True, engine=beat.engine)
    beat.clock.forward(seconds=59.5)
    assert 0 < scheduler.tick() <= 0.5


def test_a_beat_that_is_stuck_does_not_count_as_alive_any_more(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()

    class Stuck(DatabaseScheduler):
        def tick(self) -> float:
            let_go.wait(60)
            return super().tick()

    monkeypatch.setattr(health, "STALLED_AFTER", 0.5)
    service, judge = Service(scheduler_cls=Stuck), health.Health()
    judge.watch(service, "beat")
    judge.started()
    thread = threading.Thread(target=service.start)
    thread.start()
    stalled = judge.pages()["/livez"]
    assert eventually(stalled).startswith("stalled: the beat has not turned for")
    assert not history.online(database_now())  # nor has it told anybody
    let_go.set()
    eventually(lambda: not stalled())
    eventually(lambda: history.online(database_now()))
    service.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_a_service_turns_until_it_is_stopped_and_tells_the_signals(database: TestDatabase) -> None:
    told: list[Any] = []

    @signals.beat_init.connect
    def init(sender: Any, **kwargs: Any) -> None:
        told.append(("init", sender))

    @signals.beat_embedded_init.connect
    def embedded(sender: Any, **kwargs: Any) -> None:
        told.append(("embedded", sender))

    turns: list[float] = []

    class Counting(Scheduler):
        def tick(self) -> float:
            turns.append(0.0)
            return 0.001

    service = Service(scheduler_cls=Counting)
    thread = threading.Thread(target=service.start, args=(True,))
    thread.start()
    eventually(lambda: len(turns) > 3)
    service.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert told == [("init", service), ("embedded", service)]


def test_a_beat_tells_once_of_another_of_its_name(database: TestDatabase, caplog: pytest.LogCaptureFixture) -> None:
    def round_(beat: Presence) -> str:
        caplog.clear()
        beat._seen, beat._tidied = float("-inf"), max(beat._tidied, 0) - TIDY_EVERY
        beat.tell(sent=0, late=0.0)
        beat.tidy()
        return caplog.text

    first, second = (Presence("beat@t", "t", pid, "1") for pid in (1, 2))
    for beat in (first, second):
        beat.tell(sent=0, late=0.0)
        beat.tidy()
    assert caplog.text == ""  # it may have been killed, and be this one
    assert "Another beat is called beat@t: process 2 on t." in round_(first)
    assert "-n beat.%p@%h" in round_(second)
    assert round_(first) == ""
    second.leave()
    assert round_(first) == ""
    round_(third := Presence("beat@t", "t", 3, "1"))
    assert "process 3" in round_(first)
    round_(Presence("beat@u", "t", 4, "1"))
    third.leave()
    assert round_(first) == ""


def test_old_runs_and_beats_are_forgotten(beat: OneBeat) -> None:
    row = beat.row(60)
    now = datetime.now(UTC)
    for days in (1, 6, 8, 30):
        PeriodicRun.objects.create(periodic_task=row, scheduled_for=now, created_at=now - timedelta(days=days))
        about = {"name": "beat@h", "hostname": "h", "pid": 1, "version": "1", "started_at": now}
        Beat.objects.create(**about, seen_at=now - timedelta(days=days))
    Service().presence.tidy()
    assert PeriodicRun.objects.count() == 2
    assert Beat.objects.count() == 0


def test_a_model_entry_reads_its_row(beat: OneBeat) -> None:
    entry = ModelEntry(beat.row(60, args="[1]", kwargs='{"y": 2}', priority=3, expire_seconds=9))
    assert (entry.args, entry.kwargs, entry.schedule) == ([1], {"y": 2}, schedule(60))
    assert entry.options == {"priority": 3, "expires": 9}
