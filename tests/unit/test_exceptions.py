from __future__ import annotations

import builtins
import pickle
from datetime import UTC, datetime

import pytest

from django_tasks import exceptions
from django_tasks.exceptions import (
    EncodeError,
    MaxRetriesExceededError,
    NotRegistered,
    PayloadTooLarge,
    Reject,
    Retry,
    SerializationError,
    TaskError,
    UnpickleableExceptionWrapper,
)


def test_everything_but_djangos_own_is_a_task_error() -> None:
    for name in exceptions.__all__:
        cls = getattr(exceptions, name)
        assert issubclass(cls, TaskError | UserWarning) or name == "ImproperlyConfigured"


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (exceptions.TimeoutError, builtins.TimeoutError),
        (exceptions.NotRegistered, KeyError),
        (exceptions.AlreadyRegistered, ValueError),
        (exceptions.WouldBlockForever, RuntimeError),
        (exceptions.UnknownResult, LookupError),
        (EncodeError, TypeError),
        (exceptions.DecodeError, ValueError),
        (PayloadTooLarge, SerializationError),
    ],
)
def test_an_error_can_be_caught_as_what_python_calls_it(cls: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(cls, builtin)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Retry("soon"), "soon"),
        (Retry(exc=ValueError("no"), when=3), "Retry in 3s: ValueError('no')"),
        (Retry(exc="no", when=2.5), "Retry in 2.5s: no"),
        (Retry(when=datetime(2026, 1, 2, tzinfo=UTC)), "Retry at 2026-01-02 00:00:00+00:00"),
        (Reject("not mine", requeue=True), "reject requeue=True: not mine"),
        (NotRegistered("app.tasks.ad", ". Did you mean 'app.tasks.add'?"),
         "Task 'app.tasks.ad' is not registered here. Did you mean 'app.tasks.add'?"),
        (UnpickleableExceptionWrapper("shop.errors", "Sold", ("out",)), "Sold('out',)"),
    ],
)  # fmt: skip
def test_an_error_says_what_happened(error: Exception, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    "error",
    [
        Retry("soon", exc=ValueError("no"), when=3),
        Reject("not mine", requeue=True),
        NotRegistered("app.tasks.add"),
        MaxRetriesExceededError("enough", task_args=[1], task_kwargs={"a": 2}),
        UnpickleableExceptionWrapper("shop.errors", "Sold", ("out",), "sold out"),
    ],
)
def test_an_error_survives_pickling(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    simple = {key: value for key, value in vars(error).items() if not isinstance(value, Exception)}
    assert simple.items() <= vars(copy).items()


def test_a_retry_keeps_the_exception_and_its_text() -> None:
    cause = ValueError("no")
    assert (Retry(exc=cause).exc, Retry(exc=cause).excs) == (cause, "ValueError('no')")
    assert (Retry(exc="no").exc, Retry(exc="no").excs) == (None, "no")
