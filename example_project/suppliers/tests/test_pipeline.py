"""The import of price lists, run by a worker in the test's own process."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from django_tasks import AsyncResult
from django_tasks.models import TaskResult
from django_tasks.testing import run_tasks
from suppliers import lists, tasks
from suppliers.models import Offer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    lists.write_lists(tmp_path)
    return sorted(tmp_path.glob("*.csv"))


def test_three_lists_are_imported_in_forty_parts_of_which_one_is_tried_again(paths: list[Path]) -> None:
    result = tasks.import_price_lists(paths)
    run_tasks(with_scheduled=True)
    assert result.get(timeout=0) == "told of 1000 offers"
    assert Offer.objects.count() == 1000
    assert Offer.objects.get(supplier="north", article="article 0").price == Decimal("1.38")
    parts = TaskResult.objects.filter(name="suppliers.tasks.transform", state="SUCCESS")
    assert sorted(parts.values_list("retries", flat=True)) == [0] * 39 + [1]


def test_a_part_that_fails_for_good_fails_the_import_and_somebody_is_told_once(paths: list[Path]) -> None:
    paths[1].write_text("article 1,not a price,USD\n")
    result = tasks.import_price_lists(paths)
    run_tasks(with_scheduled=True, failures="collect")
    assert result.state == "FAILURE"
    assert not Offer.objects.exists()
    told = TaskResult.objects.get(name="suppliers.tasks.complain")
    assert AsyncResult(str(told.pk)).get(timeout=0) == "suppliers.tasks.load"
