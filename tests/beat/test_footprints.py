"""A look at every row is left out while nobody has written anything."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from django_tasks.beat import DatabaseScheduler, Service
from django_tasks.beat.footprints import Footprints
from django_tasks.models import Beat, PeriodicTask
from tests.beat.clock import OneBeat


def is_new(footprints: Footprints) -> bool:
    with footprints.followed() as new:
        return new


def rename(name: str) -> None:
    PeriodicTask.objects.update(description=name)


def rename_elsewhere(name: str) -> None:
    """Write as another process does: by a connection of its own."""

    def work() -> None:
        try:
            rename(name)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


@pytest.mark.databases("sqlite")
def test_whatever_is_written_is_found_out_once_whoever_wrote_it(beat: OneBeat) -> None:
    beat.row(60)
    footprints = Footprints()
    assert [is_new(footprints), is_new(footprints)] == [True, False]
    for name, write in (("x", rename), ("y", rename_elsewhere)):
        write(name)
        assert [is_new(footprints), is_new(footprints)] == [True, False]
    connection.close()  # a new one knows nothing of what was before
    assert [is_new(footprints), is_new(footprints)] == [True, False]


@pytest.mark.databases("sqlite")
def test_what_was_found_out_and_came_to_no_end_is_found_out_again(beat: OneBeat) -> None:
    beat.row(60)
    footprints = Footprints()
    with pytest.raises(ZeroDivisionError), footprints.followed() as new:
        assert new / 0
    assert is_new(footprints)


@pytest.mark.databases("sqlite")
def test_what_is_of_no_account_hides_nothing_else(beat: OneBeat) -> None:
    beat.row(60)
    footprints = Footprints()
    with footprints.of_no_account():
        rename("before anybody asked")
    assert is_new(footprints)
    with footprints.of_no_account():
        rename("x")
    assert not is_new(footprints)
    with footprints.of_no_account():
        rename("y")
        rename_elsewhere("z")
    assert is_new(footprints)
    rename("before")
    with footprints.of_no_account():
        rename("within")
    assert is_new(footprints)


@pytest.mark.databases("postgresql", "mariadb")
def test_where_the_database_cannot_tell_everything_is_new(beat: OneBeat) -> None:
    footprints = Footprints()
    with footprints.of_no_account():
        assert [is_new(footprints), is_new(footprints)] == [True, True]


@pytest.mark.databases("sqlite")
def test_a_beat_that_is_alone_does_not_look_at_its_rows_because_of_its_own_signs_of_life(beat: OneBeat) -> None:
    beat.row(3600)
    service = Service()
    service._scheduler = DatabaseScheduler(lazy=True, engine=beat.engine)
    service.turn()
    assert Beat.objects.count() == 1
    is_new(beat.engine.footprints)  # what the first look planned
    service.presence._seen = float("-inf")  # it is time for the next sign of life
    before = Beat.objects.get().seen_at
    service.turn()
    assert Beat.objects.get().seen_at > before
    assert not is_new(beat.engine.footprints)
    with transaction.atomic():
        rename("x")
    assert is_new(beat.engine.footprints)
