"""What any worker does for all of them: one chore that fails keeps none of the others from being done."""

from __future__ import annotations

from typing import NoReturn

import pytest

from django_tasks.backends import get_broker
from django_tasks.exceptions import OperationalError
from django_tasks.worker.chores import Chores
from tests.databases import TestDatabase


@pytest.mark.databases("sqlite")
def test_a_sweep_that_fails_is_not_tried_again_at_once(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fail() -> NoReturn:
        tried.append("sweep")
        raise OperationalError("the broker is full")

    broker = get_broker()
    monkeypatch.setattr(broker, "sweep", fail)
    monkeypatch.setattr(broker, "unblock", lambda: tried.append("unblock"))
    chores = Chores(broker)
    with pytest.raises(OperationalError):
        chores.do()
    chores.do()
    assert tried == ["sweep", "unblock"]
