"""Results of several tasks as one."""

from __future__ import annotations

import json
import pickle
from io import StringIO
from typing import Any

import pytest

from django_tasks import AsyncResult, GroupResult, ResultSet, chain, chord, group
from django_tasks.exceptions import IncompleteStream, TaskRevokedError, TimeoutError
from django_tasks.models import SavedGroup
from django_tasks.result import result_from_tuple
from tests.canvas.jobs import add, boom, summed, total
from tests.databases import TestDatabase
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "postgresql", "redis")


@pytest.fixture
def worker(database: TestDatabase) -> Worker:
    return Worker()


def test_a_group_is_asked_as_one(worker: Worker) -> None:
    result = group(add.s(number) for number in range(4))()
    assert (result.ready(), result.waiting(), result.completed_count(), result.successful()) == (False, True, 0, False)
    worker.step()
    assert (result.completed_count(), result.ready()) == (1, False)
    worker.drain()
    assert (result.ready(), result.waiting(), result.completed_count()) == (True, False, 4)
    assert (result.successful(), result.failed()) == (True, False)
    assert (len(result), result[2].get(timeout=0), [one.get(timeout=0) for one in result]) == (4, 3, [1, 2, 3, 4])


def test_values_come_in_order_or_to_a_callback(worker: Worker) -> None:
    result = group(add.s(number) for number in range(3))()
    worker.drain()
    assert result.join(timeout=0) == result.join_native(timeout=0) == result.get(timeout=0) == [1, 2, 3]
    seen: list[Any] = []
    assert result.join(timeout=0, callback=lambda task_id, value: seen.append((task_id, value))) == []
    assert seen == [(one.id, value) for one, value in zip(result, [1, 2, 3], strict=True)]


def test_a_spent_timeout_raises(worker: Worker) -> None:
    result = group(add.s(1), add.s(2))()
    worker.step()
    for wait in (result.join, lambda timeout: list(result.iterate(timeout=timeout))):
        with pytest.raises(TimeoutError):
            wait(timeout=0.05)


def test_values_are_yielded_as_the_tasks_end_each_once(worker: Worker) -> None:
    result = group(add.s(1), add.s(2).set(priority=5), add.s(3))()
    worker.step()
    found = result.iterate(timeout=5)
    assert next(found) == 3
    worker.drain()
    assert sorted(found) == [2, 4]
    told = dict(result.iter_native(timeout=0))
    assert {key: (one["status"], one["result"]) for key, one in told.items()} == {
        one.id: ("SUCCESS", one.get(timeout=0)) for one in result
    }


def test_a_failure_is_raised_or_is_the_value(worker: Worker) -> None:
    result = group(add.s(1), boom.s(), add.s(3))()
    worker.drain()
    assert (result.failed(), result.successful(), result.completed_count()) == (True, False, 2)
    with pytest.raises(ValueError, match="boom"):
        result.get(timeout=0)
    with pytest.raises(ValueError, match="boom"):
        result.maybe_throw()
    assert str(result.get(timeout=0, propagate=False)) == "[2, ValueError('boom'), 4]"


def test_callbacks_are_called_when_all_is_done(worker: Worker) -> None:
    called: list[Any] = []
    good, bad = group(add.s(1), add.s(2))(), group(add.s(1), boom.s())()
    for result in (good, bad):
        result.then(called.append, on_error=lambda error: called.append(str(error)))
    assert called == []
    worker.drain()
    assert good.ready()
    assert bad.ready()
    assert called == [good, "boom"]


def test_all_of_a_group_are_revoked_and_forgotten(worker: Worker) -> None:
    result = group(add.s(1), add.s(2))()
    result.revoke()
    assert [one.state for one in result] == ["REVOKED", "REVOKED"]
    with pytest.raises(TaskRevokedError):
        result.get(timeout=0)
    result.forget()
    assert not any(AsyncResult(one.id).exists() for one in result)


def test_a_group_is_kept_and_found_by_its_id(worker: Worker) -> None:
    result = (group(add.s(1), chain(add.s(1), add.s(2))) | summed.s())().parent
    assert result.save() is result
    worker.drain()
    found = GroupResult.restore(result.id)
    assert found == result
    assert found is not None
    assert found.get(timeout=0) == [2, 4]
    assert found[1].parent.get(timeout=0) == 2
    result.delete()
    assert GroupResult.restore(result.id) is None
    assert not SavedGroup.objects.exists()


def test_results_survive_json_and_pickle(worker: Worker) -> None:
    result = chord([add.s(1), chain(add.s(2), add.s(3))], chain(total.s(), add.s(1)))()
    for again in (result_from_tuple(json.loads(json.dumps(result.as_tuple()))), _pickled(result)):
        assert again.as_tuple() == result.as_tuple()
        assert isinstance(again.parent.parent, GroupResult)
        assert again.parent.parent == result.parent.parent
    assert result.as_list()[0] == result.id


def _pickled(result: Any) -> Any:
    return pickle.loads(pickle.dumps(result))  # noqa: S301 - just made


def test_a_set_of_results_is_changed_like_a_set(worker: Worker) -> None:
    first, second = add.delay(1), add.delay(2)
    results = ResultSet([first])
    results.add(first)
    results.update([first, second])
    assert results.results == [first, second]
    results.remove(first.id)
    with pytest.raises(KeyError):
        results.remove(first)
    results.discard(first)
    assert len(results) == 1
    worker.drain()
    assert results.get(timeout=0) == [3]
    results.clear()
    assert results.results == []


def test_the_tree_below_a_result_is_walked_and_drawn(worker: Worker) -> None:
    result = chain(add.s(1), group(add.s(1), add.s(2)), total.s(), add.s(10)).apply_async()
    first = result.parent.parent.parent
    with pytest.raises(IncompleteStream):
        list(first.iterdeps())
    assert [one.id for _, one in first.iterdeps(intermediate=True)] == [first.id]
    worker.drain()
    assert [value for _, value in first.collect()] == [2, [3, 4], 3, 4, 7, 17]
    assert first.get_leaf() == 17
    assert [child.id for child in first.children] == [result.parent.parent.id]
    drawn = StringIO()
    first.graph.to_dot(drawn)
    assert drawn.getvalue().count("->") == 5
    assert {one.root_id for one in (first, result, result.parent.parent)} == {first.id}


def test_a_group_is_read_in_few_queries(worker: Worker, django_assert_max_num_queries: Any) -> None:
    result = group(add.s(number) for number in range(60))()
    worker.drain()
    with django_assert_max_num_queries(2):
        assert result.get(timeout=0) == list(range(1, 61))
