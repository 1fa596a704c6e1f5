"""Rows are looked at only if somebody may have changed them: whoever it was, however long it took."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import connection, transaction

from django_tasks.beat import DatabaseScheduler, Service
from django_tasks.beat import footprints as module
from django_tasks.beat.footprints import Footprints
from django_tasks.models import Beat, CrontabSchedule, IntervalSchedule, PeriodicTask
from django_tasks.schedules import crontab
from tests.beat.clock import OneBeat
from tests.eventually import eventually


def found(footprints: Footprints) -> set[str]:
    """Return the names of the rows that are to be looked at."""
    with footprints.followed() as look:
        return set() if look.rows is None else set(look.rows.values_list("name", flat=True))


def nothing(footprints: Footprints) -> None:
    """Wait until there is nothing to look at: what others have under way on the same server, other tests, say, makes
    PostgreSQL less sure."""
    eventually(lambda: not found(footprints), message="rows are looked at again and again")


def describe(text: str, **which: Any) -> None:
    PeriodicTask.objects.filter(**which).update(description=text)


class Elsewhere:
    """Another process, or what is the same here: a connection of its own."""

    def __enter__(self) -> Elsewhere:
        self._pool, self._open = ThreadPoolExecutor(1), ExitStack()
        return self

    def __exit__(self, *exc: object) -> None:
        self.do(self._open.close)
        self.do(lambda: connection.close())  # which one it is depends on the thread
        self._pool.shutdown()

    def do(self, work: Callable[[], Any]) -> Any:
        """Do something there, and wait for it."""
        return self._pool.submit(work).result()

    def begin(self) -> None:
        """Begin a transaction, or a savepoint in one."""
        self.do(lambda: self._open.enter_context(transaction.atomic()))

    def commit(self) -> None:
        """End all of them."""
        self.do(self._open.close)


@pytest.mark.databases("sqlite", "postgresql")
def test_whatever_is_written_is_found_out_once_whoever_wrote_it(beat: OneBeat) -> None:
    beat.row(60)
    footprints = Footprints()
    assert found(footprints) == {"sweep"}
    nothing(footprints)
    with Elsewhere() as other:
        for write in (lambda: describe("x"), lambda: other.do(lambda: describe("y"))):
            write()
            assert found(footprints) == {"sweep"}
            nothing(footprints)
    connection.close()  # a new one knows nothing of what was before
    assert found(footprints) == {"sweep"}
    nothing(footprints)


@pytest.mark.databases("sqlite", "postgresql")
def test_what_was_found_out_and_came_to_no_end_is_found_out_again(beat: OneBeat) -> None:
    beat.row(60)
    footprints = Footprints()
    found(footprints)
    describe("x")
    with pytest.raises(ZeroDivisionError), footprints.followed():
        1 / 0  # noqa: B018
    with footprints.followed() as look:
        assert look.rows is not None
        look.done = False
    assert found(footprints) == {"sweep"}
    nothing(footprints)


@pytest.mark.databases("postgresql")
def test_only_the_rows_that_were_written_are_looked_at_and_all_if_a_schedule_was(beat: OneBeat) -> None:
    names = {f"row {number}" for number in range(5)}
    for name in names:
        beat.row(60, name=name)
    footprints = Footprints()
    assert found(footprints) == names
    nothing(footprints)
    describe("x", name="row 3")
    assert found(footprints) == {"row 3"}
    nothing(footprints)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_tasks_periodictask SET enabled = false WHERE name = 'row 1'")
    PeriodicTask.objects.bulk_create([PeriodicTask(name="new", task="x", interval=IntervalSchedule.objects.get())])
    assert found(footprints) == {"row 1", "new"}
    nothing(footprints)
    CrontabSchedule.from_schedule(crontab()).save()
    assert found(footprints) == {*names, "new"}
    nothing(footprints)
    IntervalSchedule.objects.update(every=61)
    assert found(footprints) == {*names, "new"}
    nothing(footprints)
    Beat.objects.all().delete()
    nothing(footprints)


@pytest.mark.databases("postgresql")
def test_many_rows_that_were_written_are_looked_at_like_all(beat: OneBeat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 1)
    for name in ("a", "b", "c"):
        beat.row(60, name=name)
    footprints = Footprints()
    found(footprints)
    nothing(footprints)
    describe("x", name__in=["a", "b"])
    assert found(footprints) == {"a", "b", "c"}


@pytest.mark.databases("postgresql")
def test_what_was_begun_before_a_look_and_committed_after_it_is_found_out(beat: OneBeat) -> None:
    """Also in a savepoint, of whose number no snapshot tells."""
    for name in ("outside", "inside", "later"):
        beat.row(60, name=name)
    footprints = Footprints()
    found(footprints)
    nothing(footprints)
    with Elsewhere() as other:
        other.begin()
        other.do(lambda: describe("x", name="outside"))
        other.begin()
        other.do(lambda: describe("x", name="inside"))
        describe("x", name="later")  # so that the numbers of both lie below the next one
        assert found(footprints) == {"later"}
        found(footprints)
        other.commit()
        assert found(footprints) >= {"outside", "inside"}
        nothing(footprints)


@pytest.mark.databases("postgresql", "mariadb")
def test_a_row_that_is_locked_while_its_schedule_changes_is_planned_once_it_is_free(beat: OneBeat) -> None:
    row = beat.row(60)
    beat.engine.plan()
    with Elsewhere() as other:
        other.begin()
        other.do(lambda: PeriodicTask.objects.select_for_update().get())
        IntervalSchedule.objects.update(every=7)
        assert beat.engine.plan() == 0
        assert beat.engine.plan() == 0
        other.commit()
    assert beat.engine.plan() == 1
    before = row.next_run_at
    row.refresh_from_db()
    assert row.next_run_at != before


@pytest.mark.databases("postgresql")
def test_once_in_a_while_all_rows_are_looked_at_whatever_the_server_tells(beat: OneBeat) -> None:
    """What it tells is wrong after a failover that takes numbers of transactions back."""
    beat.row(60)
    footprints = Footprints()
    found(footprints)
    snapshot, all_at = footprints._seen
    ahead = f"{int(snapshot.split(':')[0]) + 1_000_000}:{int(snapshot.split(':')[1]) + 1_000_000}:"
    footprints._seen = ahead, all_at - module.ALL_EVERY / 2
    describe("x")
    with footprints.followed() as look:
        assert look.rows is None
        look.done = False
    footprints._seen = ahead, all_at - module.ALL_EVERY
    assert found(footprints) == {"sweep"}
    nothing(footprints)


@pytest.mark.databases("sqlite")
def test_what_is_of_no_account_hides_nothing_else(beat: OneBeat) -> None:
    beat.row(60)
    footprints = Footprints()
    with footprints.of_no_account():
        describe("before anybody asked")
    assert found(footprints)
    with footprints.of_no_account():
        describe("x")
    assert not found(footprints)
    with footprints.of_no_account(), Elsewhere() as other:
        describe("y")
        other.do(lambda: describe("z"))
    assert found(footprints)
    describe("before")
    with footprints.of_no_account():
        describe("within")
    assert found(footprints)


@pytest.mark.databases("mariadb")
def test_where_the_database_cannot_tell_everything_is_new(beat: OneBeat) -> None:
    beat.row(60)
    footprints = Footprints()
    with footprints.of_no_account():
        assert found(footprints) == found(footprints) == {"sweep"}


@pytest.mark.databases("sqlite", "postgresql")
def test_a_beat_does_not_look_at_its_rows_because_of_its_own_signs_of_life(beat: OneBeat) -> None:
    beat.row(3600)
    service = Service()
    service._scheduler = DatabaseScheduler(lazy=True, engine=beat.engine)
    service.turn()
    assert Beat.objects.count() == 1
    nothing(beat.engine.footprints)  # what the first look planned
    service.presence._seen = float("-inf")  # it is time for the next sign of life
    before = Beat.objects.get().seen_at
    service.turn()
    assert Beat.objects.get().seen_at > before
    nothing(beat.engine.footprints)
    with transaction.atomic():
        describe("x")
    assert found(beat.engine.footprints)
