"""``pydantic=True``: arguments are validated by their annotations when sent and when run, models come back as data."""

from __future__ import annotations

import sys
from datetime import date
from decimal import Decimal
from typing import Annotated, Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_tasks import AsyncResult, Task, models, shared_task
from django_tasks.backends import get_broker
from tests.api.conftest import Runner
from tests.backends.calls import a_message, send
from tests.inprocess import Worker

pydantic = pytest.importorskip("pydantic")
pytestmark = pytest.mark.databases("sqlite", "redis")


class Line(pydantic.BaseModel):  # type: ignore[name-defined,misc]
    product: str
    count: int = 1


class Order(pydantic.BaseModel):  # type: ignore[name-defined,misc]
    number: int
    day: date
    lines: list[Line] = []


@shared_task(pydantic=True)
def total(order: Order, factor: Decimal = Decimal(1), *more: Line, **named: Later) -> Any:
    counted: list[Any] = [*order.lines, *more, *named.values()]
    return [type(order).__name__, order.day, sum(one.count for one in counted) * factor]


class Later(pydantic.BaseModel):  # type: ignore[name-defined,misc]
    """Declared below the task that names it."""

    count: int


def known(value: str, info: Any) -> str:
    if value not in info.context["known"]:
        raise ValueError("unknown product")
    return value


Product = Annotated[str, pydantic.AfterValidator(known)]
AN_ORDER: dict[str, Any] = {"number": 1, "day": "2026-01-02", "lines": [{"product": "tea", "count": 3}]}


@pytest.mark.parametrize("order", [AN_ORDER, Order(**AN_ORDER)], ids=["dict", "model"])
def test_models_may_be_given_as_models_or_as_data(order: Any, run: Runner) -> None:
    assert run(total, order).get() == ["Order", date(2026, 1, 2), Decimal(3)]
    assert run(total, order=order, factor="2").get() == ["Order", date(2026, 1, 2), Decimal(6)]
    result = run(total, order, 1, {"product": "a", "count": 10}, x={"count": 100})
    assert result.get() == ["Order", date(2026, 1, 2), Decimal(113)]
    assert result.args[0] == {**AN_ORDER, "lines": [{"product": "tea", "count": 3}]}


@pytest.mark.parametrize(
    ("args", "where"),
    [(({"number": "x", "day": "2026-01-02"},), "number"), (({"number": 1},), "day"), ((AN_ORDER, "many"), "decimal")],
)
def test_what_does_not_fit_is_refused_when_the_task_is_called(args: Any, where: str, run: Runner) -> None:
    with pytest.raises(pydantic.ValidationError, match=where):
        total.delay(*args)
    assert not models.Task.objects.exists()


def test_what_does_not_fit_when_it_runs_is_a_failure(worker: Worker) -> None:
    [sent] = send(get_broker(), a_message(total.name, body='[[{"number": "x"}],{}]'))
    result = AsyncResult[Any](sent)
    worker.drain()
    assert (result.state, type(result.result).__name__) == ("FAILURE", "ValidationError")


def test_models_come_back_as_data(run: Runner) -> None:
    @shared_task(pydantic=True, pydantic_dump_kwargs={"exclude": {"lines"}})
    def one(order: Order) -> Order:
        return order

    @shared_task(pydantic=True)
    def some() -> dict[str, list[Line]]:
        return {"lines": [Line(product="tea"), Line(product="milk", count=2)]}

    @shared_task(pydantic=True)
    def none() -> Line | None:
        return None

    assert run(one, AN_ORDER).get() == {"number": 1, "day": "2026-01-02"}
    assert run(some).get() == {"lines": [{"product": "tea", "count": 1}, {"product": "milk", "count": 2}]}
    assert run(none).get() is None


def test_strict_validation_takes_no_text_for_a_number(run: Runner) -> None:
    @shared_task(pydantic=True, pydantic_strict=True)
    def strict(number: int, day: date) -> Any:
        return [number, day]

    assert run(strict, 1, date(2026, 1, 2)).get() == [1, date(2026, 1, 2)]
    results = strict.enqueue_many([(2, date(2026, 1, 2))])
    run.finish()
    assert results[0].get() == [2, date(2026, 1, 2)]
    with pytest.raises(pydantic.ValidationError, match="valid integer"):
        strict.delay("1", date(2026, 1, 2))  # type: ignore[arg-type]


def test_validators_get_the_context(run: Runner) -> None:
    @shared_task(pydantic=True, pydantic_context={"known": ["tea"]})
    def buy(product: Product) -> str:
        return product

    assert run(buy, "tea").get() == "tea"
    with pytest.raises(pydantic.ValidationError, match="unknown product"):
        buy.delay("coal")


def test_bound_and_class_based_tasks_are_validated_too(run: Runner) -> None:
    @shared_task(pydantic=True, bind=True)
    def bound(self: Task[..., Any], line: Line) -> Any:
        if self.request.retries == 0:
            self.retry(args=(Line(product="milk", count=5),), countdown=0)
        return [type(line).__name__, line.count]

    assert run(bound, {"product": "tea"}).get() == ["Line", 5]


def test_a_task_without_it_takes_no_models(run: Runner) -> None:
    @shared_task
    def plain(line: Any) -> Any:
        return line

    with pytest.raises(TypeError, match="Line"):
        plain.delay(Line(product="tea"))


def test_without_pydantic_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(ImproperlyConfigured, match=r"pip install 'django-workbeat\[pydantic\]'"):
        shared_task(pydantic=True)(lambda x: x)


def test_a_call_of_the_function_is_not_validated() -> None:
    assert total.run(Order(**AN_ORDER))[0] == "Order"
