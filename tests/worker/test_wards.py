"""What a steward makes of what its children say."""

from __future__ import annotations

import pytest

from django_tasks.worker.puller import FREED, HEARD, IDLE, LISTENS, MORE, NEW
from django_tasks.worker.wards import says_idle


@pytest.mark.parametrize("said", [IDLE, MORE + IDLE, HEARD + LISTENS, FREED + IDLE, IDLE + FREED, LISTENS + FREED * 3])
def test_a_child_that_has_found_nothing_is_idle_whatever_it_frees_meanwhile(said: bytes) -> None:
    assert says_idle(said)


@pytest.mark.parametrize("said", [MORE, FREED, IDLE + MORE, IDLE + MORE + FREED, LISTENS + HEARD, HEARD + NEW])
def test_a_child_that_has_found_something_since_is_not(said: bytes) -> None:
    assert not says_idle(said)
