"""Beats as processes: killed, frozen, restarted, without a database, and edited behind their backs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from django_tasks import control, health
from django_tasks.dashboard import database_now
from django_tasks.models import Beat, IntervalSchedule, PeriodicRun, PeriodicTask, Task, TaskResult
from tests.conftest import do_without
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.integration.beats import BUSY, FREEZE, THAW, assert_each_tick_once, every, hang_file, moments, start_beat
from tests.integration.redis_site import RedisSite
from tests.integration.site import PATIENCE, ROOT, Site
from tests.servers import ServerMissing

#: Seconds of faults, of which one comes about every second and a half: ``BEAT_FAULTS=300`` for a long run.
FAULTS_FOR = float(os.environ.get("BEAT_FAULTS") or 12)
#: How often the database is killed under a beat: ``BEAT_RESTARTS=20`` for a long run.
RESTARTS = int(os.environ.get("BEAT_RESTARTS") or 3)
#: Seconds for which this machine may be busy with other things while a beat is to see an edit. What one look misses
#: the next one sees four seconds later, which is too late all the same.
BUSY_FOR = 2


def ran_on(row: PeriodicTask, ticks: int) -> Callable[[], bool]:
    """Return what asks whether so many ticks of a row were sent since now."""
    before = len(moments(row))
    return lambda: len(moments(row)) >= before + ticks


@pytest.mark.timeout(120 + 3 * FAULTS_FOR)
@pytest.mark.databases("postgresql", "sqlite")
def test_no_tick_is_lost_or_doubled_while_beats_are_killed_frozen_and_restarted(site: Site) -> None:
    """R8."""
    rows = [every(1, name=f"row {i}", missed="all", missed_limit=1000) for i in range(5)]
    wanted = 5 if site.database.kind == "postgresql" else 3
    beats = [start_beat(site, *BUSY) for _ in range(wanted)]
    dice = random.Random(site.database.kind)
    end, faults = time.monotonic() + FAULTS_FOR, 0
    while time.monotonic() < end:
        victim = dice.choice(beats)
        if dice.random() < 0.5:
            victim.kill()
            beats[beats.index(victim)] = start_beat(site, *BUSY, wait=False)
        else:
            victim.send(FREEZE)
            # The others go on, unless it stands still in the middle of a transaction on SQLite, which only it can end.
            with suppress(AssertionError):
                eventually(ran_on(rows[0], 2), timeout=3)
            victim.send(THAW)
        faults += 1
    site.wait_for(ran_on(rows[0], 3), message="the beats do not go on")
    for beat in beats:
        beat.wait_until_it_says("beat: Starting...")  # before that a signal ends it as it ends any process
    assert [beat.stop() for beat in beats] == [0] * wanted
    assert faults >= 3
    ticks = assert_each_tick_once(rows, 1)
    first, last = moments(rows[0])[0], moments(rows[0])[-1]
    print(f"{faults} faults, {ticks} ticks of {len(rows)} rows in {last - first}")
    assert last - first > timedelta(seconds=FAULTS_FOR)


@pytest.mark.databases("postgresql", "sqlite", "mariadb")
def test_three_beats_on_one_database_send_each_tick_once(site: Site) -> None:
    """R8."""
    rows = [every(1, name=f"row {i}", missed="all", missed_limit=1000) for i in range(20)]
    beats = [start_beat(site, *BUSY) for _ in range(3)]
    site.wait_for(lambda: len(moments(rows[0])) >= 6, message="the beats do not send")
    assert [beat.stop() for beat in beats] == [0, 0, 0]
    assert assert_each_tick_once(rows, 1) >= 100
    assert all("Traceback" not in beat.said() for beat in beats)


@pytest.mark.timeout(120 + 20 * RESTARTS)
@pytest.mark.databases("postgresql", private=True)
def test_a_beat_survives_restarts_of_its_database_and_catches_up(site: Site) -> None:
    """PAINS: it neither ends nor falls silent."""
    server = site.database.server
    assert server is not None
    row = every(1, missed="all", missed_limit=1000)
    beat = start_beat(site, *BUSY)
    site.wait_for(lambda: moments(row), message="the beat does not begin")
    for _ in range(RESTARTS):
        connection.close()
        server.kill()
        beat.wait_until_it_says("Trying again in")
        server.start()
        on = site.wait_for(lambda: ran_on(row, 2))
        site.wait_for(on, timeout=10, message="it is silent")
    assert beat.stop() == 0
    assert_each_tick_once([row], 1)


@pytest.mark.databases("sqlite", "postgresql", "mariadb")
def test_an_edit_of_a_schedule_by_sql_takes_effect_within_five_seconds(site: Site) -> None:
    row = every(86_400)
    start_beat(site)
    site.wait_for(lambda: Beat.objects.exists())
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_tasks_intervalschedule SET every = 1")
    edited = database_now()
    site.wait_for(lambda: moments(row), message="the edit is not seen")
    first = moments(row)[0]
    # Seen within five seconds; the first run comes an interval after that, and this machine may be busy for one more.
    assert first - edited <= timedelta(seconds=5 + 1 + 1)


@pytest.mark.databases("sqlite", "postgresql", "mariadb")
def test_an_edit_by_any_path_is_seen_within_five_seconds(site: Site) -> None:
    daily, hourly = (IntervalSchedule.objects.create(every=seconds, period="seconds") for seconds in (86_400, 3_600))
    sql = "UPDATE django_tasks_periodictask SET interval_id = {} WHERE name = '{}'"

    def update(name: str) -> None:
        PeriodicTask.objects.filter(name=name).update(interval=hourly)

    def bulk_update(name: str) -> None:
        row = PeriodicTask.objects.get(name=name)
        row.interval = hourly
        PeriodicTask.objects.bulk_update([row], ["interval"])

    def raw_save(name: str) -> None:  # as loaddata does
        row = PeriodicTask.objects.get(name=name)
        row.interval = hourly
        row.save_base(raw=True)

    def by_sql(name: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql.format(hourly.pk, name))

    def another_process(name: str) -> None:
        code = f'from django.db import connection as c; c.cursor().execute("{sql.format(hourly.pk, name)}")'
        command = [sys.executable, "-m", "tests.manage", "shell", "-c", code]
        subprocess.run(command, env=site.environ(), cwd=ROOT, check=True)

    def bulk_create(name: str) -> None:
        PeriodicTask.objects.filter(name=name).delete()
        PeriodicTask.objects.bulk_create([PeriodicTask(name=name, task="tests.app.tasks.noop", interval=hourly)])

    edits = {edit.__name__: edit for edit in (another_process, update, bulk_update, raw_save, by_sql, bulk_create)}
    for name in edits:
        PeriodicTask(name=name, task="tests.app.tasks.noop", interval=daily).save()
    start_beat(site)
    site.wait_for(lambda: Beat.objects.exists())
    edited = {}
    for name, edit in edits.items():
        edit(name)
        edited[name] = time.monotonic()
    late = _seconds_until_planned(site, edited)
    print(late)
    assert max(late.values()) <= 5 + BUSY_FOR, late


@pytest.mark.databases("postgresql", "mariadb")
def test_an_edit_in_a_long_transaction_is_seen_within_five_seconds_of_its_commit(site: Site) -> None:
    """Although the beat has looked between the edit and the commit."""
    long, short = (every(86_400, name=name) for name in ("long", "short"))
    hourly = IntervalSchedule.objects.create(every=3_600, period="seconds")
    start_beat(site)
    site.wait_for(lambda: Beat.objects.exists())
    written, go_on = threading.Event(), threading.Event()

    def edit_slowly() -> float:
        with closing(connection), transaction.atomic():
            PeriodicTask.objects.filter(pk=long.pk).update(description="x")
            with transaction.atomic():
                PeriodicTask.objects.filter(pk=long.pk).update(interval=hourly)
            written.set()
            assert go_on.wait(PATIENCE)
        return time.monotonic()

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(edit_slowly)
        assert written.wait(PATIENCE)
        for _ in range(2):
            PeriodicTask.objects.filter(pk=short.pk).update(start_time=database_now())
            _seconds_until_planned(site, {"short": time.monotonic()})
        go_on.set()
        late = _seconds_until_planned(site, {"long": slow.result()})
    print(late)
    assert late["long"] <= 5 + BUSY_FOR, late


def _seconds_until_planned(site: Site, edited: Mapping[str, float]) -> dict[str, float]:
    """Wait until the beat has seen what was edited when; return after how many seconds it had."""
    seen: dict[str, float] = {}

    def all_are_planned() -> bool:
        left = set(PeriodicTask.objects.changed().values_list("name", flat=True))
        now = time.monotonic()
        for name in edited.keys() - left - seen.keys():
            seen[name] = now - edited[name]
        return seen.keys() == edited.keys()

    site.wait_for(all_are_planned, message="an edit is not seen")
    return seen


@pytest.mark.databases("sqlite")
def test_a_beat_ends_in_order_and_says_so(site: Site) -> None:
    beat = start_beat(site)
    site.wait_for(lambda: Beat.objects.filter(pid=beat.pid, stopped_at=None).exists())
    assert Beat.objects.get().status(database_now()) == "online"
    assert beat.stop(signal.SIGTERM) == 0
    assert Beat.objects.get().status(database_now()) == "stopped"
    assert "beat: Stopped." in beat.said()


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("signals", [1, 2])
def test_a_beat_that_is_stuck_ends_soon_after_a_signal_and_at_once_after_a_second(
    site: Site, tmp_path: Path, signals: int
) -> None:
    hang_file(site).touch()
    pid = tmp_path / "pid"
    beat = start_beat(site, "-S", "tests.integration.beats:Hanging", "--pidfile", str(pid))
    beat.send(signal.SIGTERM)
    beat.wait_until_it_says("beat: Stopping...")
    if signals == 2:
        beat.send(signal.SIGTERM)
    assert beat.wait() == 70
    assert ("before it was told so again" if signals == 2 else "within 10 s") in beat.said()
    assert not pid.exists()


@pytest.mark.databases("sqlite", "postgresql")
def test_a_beat_answers_pings_as_long_as_its_loop_turns(site: Site) -> None:
    def answers() -> bool:
        return control.inspect(["beat@t"], timeout=3).ping() == {"beat@t": {"ok": "pong"}}

    def is_silent() -> bool:
        return control.inspect(["beat@t"], timeout=1.5).ping() is None

    beat = start_beat(site, *BUSY, "-n", "beat@t", "-S", "tests.integration.beats:Hanging")
    site.wait_for(answers, message="the beat does not answer")
    hang_file(site).touch()
    site.wait_for(is_silent, message="a beat answers that stands still")
    assert beat.process.poll() is None
    hang_file(site).unlink()
    site.wait_for(answers, message="the beat does not answer any more")
    beat.send(FREEZE)
    site.wait_for(is_silent, message="a frozen beat answers")
    beat.send(THAW)
    site.wait_for(answers, message="the beat does not answer any more")
    assert beat.stop() == 0
    assert control.inspect(["beat@t"], timeout=0.1).ping() is None
    assert control.beats() == []


@pytest.mark.databases("sqlite")
def test_health_file_and_pidfile_live_as_long_as_the_beat(site: Site, tmp_path: Path) -> None:
    told, pid = tmp_path / "health", tmp_path / "pid"
    beat = start_beat(site, "--health-file", str(told), "--pidfile", str(pid), "-f", str(tmp_path / "log"), wait=False)
    site.wait_for(lambda: told.exists() and pid.exists() and pid.read_text().strip() == str(beat.pid))
    assert health.problem_of(told) is None
    other = start_beat(site, "--pidfile", str(pid), wait=False)
    assert other.wait() == 73
    assert beat.stop() == 0
    assert not told.exists()
    assert not pid.exists()
    assert "beat: Stopped." in (tmp_path / "log").read_text()


@pytest.mark.databases("postgresql")
def test_what_redis_carries_has_a_row_though_other_tasks_have_none(database: TestDatabase, tmp_path: Path) -> None:
    """Or a tick would be lost whose beat dies between its commit and Redis, and no policy could see what runs."""
    try:
        site = RedisSite(database, tmp_path)
    except ServerMissing as missing:
        do_without("redis", missing)
    with closing(site):
        site.configure(TASK_DURABLE=False)
        row = every(1, overlap="skip")
        start_beat(site, *BUSY)
        site.wait_for(lambda: Task.objects.exists(), message="the run has no row")
        site.wait_for(lambda: PeriodicRun.objects.filter(skipped="overlap").exists(), message="it is not seen")
        site.start()
        site.wait_for(lambda: TaskResult.objects.filter(state="SUCCESS").count() >= 2, message="nothing runs")
        assert len(moments(row)) >= 2


@pytest.mark.databases("sqlite", "postgresql")
@pytest.mark.parametrize("pool", [(), ("-P", "solo")])
def test_a_worker_with_a_beat_sends_and_runs(site: Site, pool: tuple[str, ...]) -> None:
    row = every(1, task="tests.app.tasks.add", args="[1, 2]")
    worker = site.launch("--beat", "-n", "w@t", *pool)
    asked = control.inspect(["w@t", "beat.w@t"], timeout=5)
    site.wait_for(lambda: set(asked.ping() or ()) == {"w@t", "beat.w@t"}, message="they do not answer")
    site.wait_for(lambda: TaskResult.objects.filter(state="SUCCESS").count() >= 2, message="nothing runs")
    assert worker.stop() == 0
    assert moments(row)
    assert Beat.objects.get().stopped_at is not None


@pytest.mark.databases("sqlite")
def test_what_the_code_declares_runs(site: Site) -> None:
    declared = {"pulse": {"task": "tests.app.tasks.add", "schedule": 1, "args": [1]}}
    beat = start_beat(site, BEAT_SCHEDULE=declared)
    site.wait_for(lambda: Task.objects.filter(name="tests.app.tasks.add").exists(), message="nothing is sent")
    assert beat.stop() == 0
    assert PeriodicTask.objects.get(name="pulse").origin == "code"


@pytest.mark.databases("postgresql", "sqlite")
def test_an_idle_beat_costs_next_to_nothing(site: Site) -> None:
    for number in range(100):
        every(86_400, name=f"daily {number}")
    beat = start_beat(site)
    site.wait_for(lambda: Beat.objects.exists())
    process = psutil.Process(beat.pid)

    def spent() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    seen = Beat.objects.get().seen_at
    before, began = spent(), time.monotonic()
    site.wait_for(lambda: Beat.objects.get().seen_at > seen + timedelta(seconds=8), timeout=PATIENCE)
    share = (spent() - before) / (time.monotonic() - began)
    print(f"an idle beat with 100 schedules takes {share:.2%} of a core")
    assert share < 0.01  # 0.3 % on a machine of its own; clocks of processes tick in hundredths of a second


def test_a_bad_command_line_names_the_option() -> None:
    with pytest.raises(CommandError, match="--max-interval 0"):
        call_command("runbeat", max_interval=0.0)
    with pytest.raises(CommandError, match="--loglevel 'loud'"):
        call_command("runbeat", loglevel="loud")
    with pytest.raises(CommandError, match=r"--scheduler no\.such:Thing: .*allowed is package\.module:Class"):
        call_command("runbeat", scheduler="no.such:Thing")
    with pytest.raises(CommandError, match=r"--scheduler pathlib\.Path: that is .*a subclass of"):
        call_command("runbeat", scheduler="pathlib.Path")


@pytest.mark.databases("sqlite")
def test_a_scheduler_of_one_s_own_sends_by_schedules_that_no_row_can_hold(site: Site) -> None:
    beat = start_beat(site, "-S", "tests.integration.beats:OwnScheduler")
    site.wait_for(lambda: Task.objects.filter(name="tests.app.tasks.noop").count() >= 2, message="nothing is sent")
    before = Task.objects.count()
    site.wait_for(lambda: Beat.objects.get().sent >= before, message="it does not tell what it sends")
    assert beat.stop() == 0
    assert not PeriodicTask.objects.exists()
    assert Beat.objects.get().sent <= Task.objects.count()
