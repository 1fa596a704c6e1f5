"""``AsyncResult``: what a caller can learn of a task, and how it waits."""

from __future__ import annotations

import asyncio
import builtins
import copy
import json
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections, transaction

from django_tasks import AsyncResult, EagerResult, Task, models, shared_task, tasks
from django_tasks.exceptions import TaskRevokedError, TimeoutError, UnknownResult, WouldBlockForever
from django_tasks.result import allow_join_result, result_from_tuple
from tests.api.conftest import Runner
from tests.databases import TestDatabase
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "redis")


@shared_task
def add(x: int, y: int = 0) -> int:
    return x + y


@shared_task
def fail(text: str = "no") -> None:
    raise ValueError(text)


@contextmanager
def working_elsewhere(worker: Worker) -> Iterator[None]:
    """Let the worker run in a thread of its own, until the end of the block."""
    ended = threading.Event()

    def work() -> None:
        try:
            while not ended.is_set():
                if worker.step() is None:
                    time.sleep(0.01)
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# What it is ----------------------------------------------------------------------------------------------------------


def test_a_result_is_its_id() -> None:
    one, same, other = AsyncResult[Any]("a"), AsyncResult[Any]("a", task_name="x"), AsyncResult[Any]("b")
    assert one == same == "a"
    assert one != other
    assert one != "b"
    assert one != 5
    assert {one, same, other} == {one, other}
    assert hash(one) == hash("a")
    assert (str(one), repr(one), one.id, one.task_id) == ("a", "<AsyncResult: a>", "a", "a")
    assert repr(EagerResult[int]("a", 1, "SUCCESS")) == "<EagerResult: a>"
    with pytest.raises(ValueError, match="needs the id of a task, not None"):
        AsyncResult(None)  # type: ignore[arg-type]


def test_a_result_survives_pickling_and_copying(run: Runner) -> None:
    result = run(add, 1, 2)
    for same in (pickle.loads(pickle.dumps(result)), copy.copy(result), copy.deepcopy(result)):  # noqa: S301 - our own
        assert (same, type(same), same.name, same.get()) == (result, type(result), add.name, 3)
    failed = pickle.loads(pickle.dumps(run(fail)))  # noqa: S301 - our own
    assert (failed.state, str(failed.result)) == ("FAILURE", "no")


def test_app_and_backend_are_accepted_as_in_celery(run: Runner) -> None:
    result = run(add, 1)
    assert AsyncResult[int](result.id, backend=None, app=object()).id == result.id
    assert add.AsyncResult(result.id).name == add.name


def test_the_details_are_always_there(run: Runner) -> None:
    result = run.apply(add, (1,), {"y": 2}, queue="mail")
    assert (result.name, result.args, result.kwargs, result.queue, result.retries) == (
        add.name,
        [1],
        {"y": 2},
        "mail",
        0,
    )
    assert (result.state, result.status, result.result, result.info) == ("SUCCESS", "SUCCESS", 3, 3)
    assert (result.ready(), result.successful(), result.failed(), result.exists()) == (True, True, False, True)
    assert result.worker is not None
    assert result.date_done is not None
    assert (result.traceback, result.children, result.parent) == (None, None, None)


def test_before_it_has_run_nothing_is_known_of_its_end(worker: Worker) -> None:
    result = add.apply_async((1,), queue="mail")
    assert (result.state, result.result, result.traceback, result.date_done) == ("PENDING", None, None, None)
    assert (result.ready(), result.successful(), result.failed(), result.exists()) == (False, False, False, True)
    assert (result.name, result.args, result.kwargs, result.queue, result.worker) == (add.name, [1], {}, "mail", None)
    delivery = worker.claim()
    assert (result.state, result.ready()) == ("STARTED", False)
    assert delivery is not None
    worker.run(delivery)
    assert (result.state, result.worker) == ("SUCCESS", "here@test")


def test_a_failure_tells_its_error(run: Runner) -> None:
    result = run(fail, "oh")
    assert (result.ready(), result.successful(), result.failed()) == (True, False, True)
    assert isinstance(result.result, ValueError)
    assert "ValueError: oh" in (result.traceback or "")
    for raising in (result.get, result.wait, result.maybe_throw, result.maybe_reraise):
        with pytest.raises(ValueError, match="oh"):
            raising()
    assert str(result.get(propagate=False)) == str(result.maybe_throw(propagate=False)) == "oh"


def test_what_is_done_is_read_once(worker: Worker, django_assert_num_queries: Callable[..., Any]) -> None:
    result = add.delay(1, 2)
    worker.drain()
    assert result.get() == 3
    with django_assert_num_queries(0):
        assert (result.get(), result.state, result.ready(), result.traceback, result.args) == (
            3,
            "SUCCESS",
            True,
            None,
            [1, 2],
        )


# Unknown -------------------------------------------------------------------------------------------------------------


def test_an_id_that_nobody_knows_is_pending_as_in_celery(database: TestDatabase) -> None:
    result = AsyncResult[Any]("never sent")
    assert (result.state, result.ready(), result.result, result.exists()) == ("PENDING", False, None, False)
    assert (result.name, result.args, result.kwargs, result.queue, result.retries) == (None, None, None, None, None)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.01)


def test_or_it_is_an_error_if_the_setting_says_so(worker: Worker, configure: Callable[..., None]) -> None:
    configure(RESULT_UNKNOWN_RAISES=True)
    result = AsyncResult[Any]("never sent")
    assert result.exists() is False
    for asking in (lambda: result.state, lambda: result.result, result.ready, result.successful, result.get):
        with pytest.raises(UnknownResult, match="Nobody knows a task never sent"):
            asking()
    known = add.delay(1)
    assert known.state == "PENDING"
    ignored: AsyncResult[Any] = add.apply_async((1,), ignore_result=True)
    worker.drain()
    assert (known.get(), ignored.get(), ignored.state) == (1, None, "PENDING")


def test_what_is_forgotten_is_unknown(worker: Worker) -> None:
    result = add.delay(1)
    result.forget()  # it is not done: it stays
    assert result.exists()
    worker.drain()
    assert result.get() == 1
    child = AsyncResult[int]("child", parent=result)
    child.forget()
    assert (result.state, result.exists()) == ("PENDING", False)
    assert models.TaskResult.objects.count() == 0


# Waiting -------------------------------------------------------------------------------------------------------------


@pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")
def test_get_waits_until_the_task_is_done(worker: Worker) -> None:
    result = add.apply_async((1, 2), countdown=0.3)
    with working_elsewhere(worker):
        assert result.get(timeout=60) == 3


def test_get_gives_up_after_its_timeout(database: TestDatabase) -> None:
    """R20: get() obeys its timeout."""
    result = add.delay(1)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=rf"Task {result.id} was not done within 0.2 seconds"):
        result.get(timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 20
    with pytest.raises(result.TimeoutError):
        result.get(timeout=0)
    with pytest.raises(builtins.TimeoutError):
        result.get(timeout=-1)


@pytest.mark.parametrize("interval", [0, 0.01, 0.1])
def test_on_interval_is_called_while_it_waits(interval: float, database: TestDatabase) -> None:
    calls: list[int] = []
    with pytest.raises(TimeoutError):
        add.delay(1).get(timeout=0.5, interval=interval, on_interval=lambda: calls.append(1))
    assert calls


def test_a_callback_gets_the_id_and_the_value(run: Runner) -> None:
    told: list[Any] = []
    result = run(add, 1, 2)
    assert result.get(callback=lambda *args: told.append(args)) == 3
    assert result.maybe_throw(callback=lambda *args: told.append(args)) == 3
    failed = run(fail)
    failed.get(propagate=False, callback=lambda task_id, value: told.append((task_id, str(value))))
    assert told == [(result.id, 3), (result.id, 3), (failed.id, "no")]


def test_then_calls_back_once_it_is_known_to_be_done(worker: Worker) -> None:
    told: list[Any] = []
    result, failed = add.delay(1, 2), fail.delay()
    assert result.then(lambda done: told.append(done.get())) is result
    failed.then(lambda done: told.append("not called"), on_error=lambda error: told.append(str(error)))
    assert (result.ready(), told) == (False, [])
    worker.drain()
    assert (result.state, failed.state, told) == ("SUCCESS", "FAILURE", [3, "no"])
    result.then(told.append)
    assert told == [3, "no", result]
    eager = add.apply((1,))
    eager.then(told.append)
    assert told[-1] is eager


def test_celery_s_other_arguments_are_accepted(run: Runner) -> None:
    assert run(add, 1).get(no_ack=False, follow_parents=False, on_message=print, timeout=10.0) == 1


def test_waiting_in_asynchronous_code_lets_others_run(worker: Worker) -> None:
    result, failed = add.apply_async((1, 2), countdown=0.3), fail.delay()

    async def wait() -> Any:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        value = await result.aget(timeout=60)
        ticking.cancel()
        with pytest.raises(ValueError, match="no"):
            await failed.aget(timeout=60)
        with pytest.raises(TimeoutError):
            await AsyncResult[Any]("unknown").aget(timeout=0.01)
        return value, ticks

    with working_elsewhere(worker):
        value, ticks = asyncio.run(wait())
    assert value == 3
    assert ticks > 3


# Where waiting cannot end --------------------------------------------------------------------------------------------


def test_get_inside_a_task_is_refused_unless_it_is_allowed(run: Runner) -> None:
    sent: list[AsyncResult[int]] = []

    @shared_task
    def outer(allowed: str) -> Any:
        sent.append(add.delay(1, 2))
        run.finish()
        if allowed == "by argument":
            return sent[-1].get(disable_sync_subtasks=False)
        if allowed == "by block":
            with allow_join_result():
                return sent[-1].get()
        return sent[-1].get()

    assert [run(outer, allowed).get() for allowed in ("by argument", "by block")] == [3, 3]
    refused = run(outer, "no")
    assert isinstance(refused.result, WouldBlockForever)
    assert isinstance(refused.result, RuntimeError)
    with pytest.raises(WouldBlockForever, match=r"get\(\) inside a task"):
        refused.get()


def test_get_in_a_task_that_is_called_as_a_function_is_allowed(run: Runner) -> None:
    result = run(add, 1, 2)

    @shared_task
    def outer() -> Any:
        return result.get()

    assert outer() == 3


@pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")
def test_get_in_the_transaction_that_holds_the_call_is_refused_at_once(worker: Worker) -> None:
    before = add.delay(4)
    with transaction.atomic():
        result = add.delay(1, 2)
        with pytest.raises(WouldBlockForever, match="sent in the transaction that is still open here"):
            result.get()
        result.revoke()
        with pytest.raises(TaskRevokedError):
            result.get()
        transaction.set_rollback(True)
    with working_elsewhere(worker):
        assert before.get(timeout=60) == 4
        with transaction.atomic():
            assert before.get() == 4


@pytest.mark.databases("postgresql", "mariadb")
def test_get_in_a_transaction_sees_what_others_do_meanwhile(worker: Worker) -> None:
    result = add.apply_async((1, 2), countdown=0.5)
    with transaction.atomic():
        assert result.state == "PENDING"  # from here on, MariaDB shows this transaction the past
        with working_elsewhere(worker):
            assert result.get(timeout=60) == 3


# As data -------------------------------------------------------------------------------------------------------------


def test_a_result_returned_by_a_task_can_be_rebuilt(run: Runner) -> None:
    @shared_task
    def outer() -> Any:
        return add.delay(1, 2)

    data = run(outer).get()
    run.finish()
    inner = result_from_tuple(data)
    assert isinstance(inner, AsyncResult)
    assert data == [[inner.id, None], None]
    assert run.is_eager or inner.get() == 3


def test_a_result_becomes_a_tuple_and_a_list_and_comes_back() -> None:
    root = AsyncResult[Any]("root")
    leaf = AsyncResult[Any]("leaf", parent=AsyncResult[Any]("middle", parent=root))
    assert leaf.as_tuple() == (("leaf", (("middle", (("root", None), None)), None)), None)
    assert leaf.as_list() == ["leaf", "middle", "root"]
    for data in (leaf.as_tuple(), json.loads(json.dumps(leaf.as_tuple()))):
        again = result_from_tuple(data)
        assert again == leaf
        assert again.parent == leaf.parent
        assert again.parent is not None
        assert again.parent.parent == root
    assert result_from_tuple(leaf) is leaf
    assert result_from_tuple(("id", None), app=object()).id == "id"


def test_the_status_of_a_task_as_a_view_tells_it(run: Runner) -> None:
    def view(task_id: str) -> dict[str, Any]:
        result = AsyncResult[Any](task_id)
        shown = str(result.result) if result.failed() else result.result
        return {"task_id": result.id, "status": result.status, "result": shown}

    run.configure(TASK_STORE_EAGER_RESULT=True)
    done, failed = run(add, 1, 2), run(fail)
    assert json.loads(json.dumps([view(done.id), view(failed.id), view("x")])) == [
        {"task_id": done.id, "status": "SUCCESS", "result": 3},
        {"task_id": failed.id, "status": "FAILURE", "result": "no"},
        {"task_id": "x", "status": "PENDING", "result": None},
    ]


def test_a_result_outlives_the_code_of_its_task(worker: Worker) -> None:
    @shared_task(bind=True)
    def temporary(self: Task[..., Any]) -> int:
        return 5

    result = temporary.delay()
    worker.drain()
    tasks.unregister(temporary)
    assert (AsyncResult[int](result.id).get(), result.name) == (5, temporary.name)
