"""What a queue that is empty now and then is said to do, and one that holds more than is counted."""

from __future__ import annotations

import time

import pytest
from django.test import Client

from django_tasks.cockpit.numbers import SPANS
from django_tasks.cockpit.overview import QueueRow, gather
from django_tasks.cockpit.panels import QueueLine
from django_tasks.models import QueueSample
from django_tasks.paging import COUNT_LIMIT
from tests.admin.pages import read, text_of
from tests.cockpit.site_rows import a_worker, rollup
from tests.databases import TestDatabase
from tests.rows import ago, saved, waiting


def this_minute() -> int:
    return int(time.time()) // 60 * 60


def sampled(**queues: tuple[int, ...]) -> None:
    """Store what queues held in the last minutes, as workers do: what holds nothing is left out."""
    minutes, now = max(map(len, queues.values())), this_minute()
    found = []
    for ago_, counts in zip(range(minutes - 1, -1, -1), zip(*queues.values(), strict=True), strict=True):
        held = {name: count for name, count in zip(queues, counts, strict=True) if count}
        found += [(now - 60 * ago_, name, count) for name, count in {**held, "": sum(held.values())}.items()]
    QueueSample.objects.bulk_create(
        QueueSample(moment=moment, queue=name, waiting=count, scheduled=0, running=0, oldest=0)
        for moment, name, count in found
    )


def row_of(name: str) -> QueueRow:
    return next(row for row in gather(SPANS["1h"]).queues if row.now.name == name)


def test_a_queue_that_was_emptied_has_no_trend(database: TestDatabase) -> None:
    sampled(drained=(100, 50, 0, 0, 0, 0), grown=(0, 10, 100, 0, 0, 0))
    saved([rollup(name, "a", moment=this_minute() - 120, succeeded=1) for name in ("drained", "grown")])
    for name in ("drained", "grown"):
        assert QueueLine.of(row_of(name)).trend == "", name


def test_a_queue_that_came_to_be_grows_from_nothing(database: TestDatabase) -> None:
    sampled(new=(0, 0, 0, 0, 0, 300))
    saved([waiting(queue="new", due_at=ago(1))])
    assert QueueLine.of(row_of("new")).trend == "growing by 60 per minute"


def test_what_came_and_went_between_two_empty_looks_came_in(database: TestDatabase) -> None:
    sampled(q=(0, 50, 0, 0))
    saved([rollup("q", "a", moment=this_minute() - 60, succeeded=90)])
    assert row_of("q").arriving == 90 / 60


@pytest.mark.databases("sqlite")
def test_more_than_is_counted_takes_as_long_as_all_of_it(database: TestDatabase) -> None:
    capped = COUNT_LIMIT + 1
    sampled(big=(25_600 + 2_400, 25_600 + 1_800, 25_600 + 1_200, 25_600 + 600, 25_600))
    saved([waiting(queue="big", due_at=ago(5)) for _ in range(capped)])
    row = row_of("big")
    assert (row.now.waiting, row.growth, row.empty_in) == (capped, -10.0, 2_560.0)
    assert QueueLine.of(row).trend == "empty in about 43 min"


@pytest.mark.databases("sqlite")
def test_the_page_of_a_queue_that_is_empty_says_that_somebody_looked(root: Client) -> None:
    url = "/admin/django_tasks/queue/idle/change/"
    assert "No worker has looked." in text_of(read(root, url))
    sampled(other=(3, 2, 1))
    assert "No worker has looked." not in text_of(read(root, url))
    assert "At most 0." in text_of(read(root, url))


@pytest.mark.databases("sqlite")
def test_programs_are_told_how_far_is_counted(root: Client) -> None:
    a_worker("w1")
    assert root.get("/admin/django_tasks/overview/overview.json").json()["counted_to"] == COUNT_LIMIT
