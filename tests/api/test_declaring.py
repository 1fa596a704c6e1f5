"""``@shared_task`` and its options, and class-based tasks."""

from __future__ import annotations

import pickle
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

import django_tasks
from django_tasks import Task, models, register_task, shared_task, tasks
from django_tasks.exceptions import AlreadyRegistered, ImproperlyConfigured
from tests.api.conftest import Runner
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "redis")


@shared_task
def double(x: int) -> int:
    """Return twice as much."""
    return 2 * x


class Counter(Task[..., int]):
    """A class-based task that keeps something on itself."""

    started = 0

    def run(self, by: int = 1) -> int:
        self.started += by
        return self.started


counter = register_task(Counter)


def test_a_task_is_named_after_its_module_and_function_and_stays_a_function() -> None:
    assert double.name == "tests.api.test_declaring.double"
    assert double(4) == 8
    assert (double.__name__, double.__doc__, double.__module__) == ("double", "Return twice as much.", __name__)
    assert double.__wrapped__(4) == 8  # type: ignore[attr-defined]
    assert tasks[double.name] is double
    assert repr(double) == "<@task: tests.api.test_declaring.double>"


def test_a_task_may_be_declared_in_a_function_bare_or_with_options_and_again() -> None:
    for factor in (2, 3):

        @shared_task(queue="images", color="red")
        def inner(x: int, factor: int = factor) -> int:
            return x * factor

        assert inner(1) == factor
        assert (inner.name, inner.queue) == ("tests.api.test_declaring.inner", "images")
        assert inner.color == "red"  # type: ignore[attr-defined]
        assert tasks[inner.name] is inner


def test_two_functions_cannot_have_one_name() -> None:
    def other() -> None: ...

    with pytest.raises(AlreadyRegistered, match=re.escape("test_declaring.double")):
        shared_task(name=double.name)(other)


def test_a_task_survives_pickling_as_itself() -> None:
    assert pickle.loads(pickle.dumps(double)) is double  # noqa: S301 - our own


def test_bind_gives_the_task_itself_as_first_argument(run: Runner) -> None:
    @shared_task(bind=True, name="any.name.will-do")
    def who(self: Task[..., Any], x: int) -> tuple[str, str | None, int]:
        return self.name, self.request.id, x

    result = run(who, 5)
    assert result.get() == ["any.name.will-do", result.id, 5]
    assert who(5) == ("any.name.will-do", None, 5)


def test_base_is_the_class_of_the_task(run: Runner) -> None:
    class Loud(Task[..., Any]):
        queue = "loud"

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return f"{self.run(*args, **kwargs)}!"

    @shared_task(base=Loud)
    def greet(name: str) -> str:
        return f"hello {name}"

    result = run(greet, "you")
    assert isinstance(greet, Loud)
    assert (result.get(), result.queue) == ("hello you!", "loud")


def test_what_a_task_keeps_on_itself_is_there_in_the_next_run(run: Runner) -> None:
    class Connected(Task[..., Any]):
        _connection: object = None

        @property
        def connection(self) -> object:
            if self._connection is None:
                self._connection = object()
            return self._connection

    @shared_task(base=Connected, bind=True)
    def use(self: Connected) -> int:
        return id(self.connection)

    assert run(use).get() == run(use).get()


def test_a_class_becomes_a_task_by_registering_it_or_an_instance(run: Runner) -> None:
    assert counter.name == "tests.api.test_declaring.Counter"
    before = counter.started
    assert run(counter, 2).get() == before + 2
    assert run(counter).get() == before + 3
    assert counter(by=1) == before + 4

    class Named(Task[..., str]):
        name = "named"
        queue = "own"

        def run(self, x: str) -> str:
            return f"{x} {self.request.delivery_info['queue'] if self.request.delivery_info else None}"

    named = register_task(Named())
    assert tasks["named"] is named
    assert run(named, "in").get() == "in own"
    assert tasks.register(Named) is tasks["named"]


def test_a_class_without_a_body_is_no_task() -> None:
    class Empty(Task[..., Any]):
        pass

    with pytest.raises(TypeError, match=r"Empty needs a method run\(\)"):
        register_task(Empty)


def test_declaring_touches_no_database_so_it_may_stand_anywhere() -> None:
    # pytest-django refuses every query here: this test takes no database.
    @shared_task(acks_late=True, expires=60, serializer="json")
    def anywhere() -> None: ...

    assert anywhere.name


def test_the_public_names_are_handed_on_at_the_top() -> None:
    for name in django_tasks.__all__:
        assert getattr(django_tasks, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'celery'"):
        django_tasks.celery  # noqa: B018


# What each option means when the task is sent; what it means when it runs is tested elsewhere.

OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"queue": "mail"}, {"queue": "mail"}),
    ({"routing_key": "mail"}, {"queue": "mail"}),
    ({"exchange": "mail"}, {"queue": "mail"}),
    ({"queue": "mail", "routing_key": "mail.new", "exchange": "post"}, {"queue": "mail"}),
    ({"priority": 7}, {"priority": 7}),
    ({"priority": -100}, {"priority": -100}),
    ({"acks_late": True}, {"at_most_once": False}),
    ({"acks_late": False}, {"at_most_once": True}),
    ({"acks_late": True, "reject_on_worker_lost": True}, {"at_most_once": False}),
    ({"acks_late": True, "reject_on_worker_lost": False}, {"at_most_once": True}),
    ({"reject_on_worker_lost": False}, {"at_most_once": True}),
    ({"serializer": "msgpack"}, {"encoding": "msgpack"}),
    ({"compression": "gzip"}, {"encoding": "json+gzip"}),
    ({"serializer": "msgpack", "compression": "zlib"}, {"encoding": "msgpack+zlib"}),
    ({}, {"queue": "default", "priority": 0, "at_most_once": False, "encoding": "", "expires_at": None}),
]


@pytest.mark.parametrize(("declared", "stored"), OPTIONS, ids=[str(one) for one, _ in OPTIONS])
def test_what_is_declared_is_stored_with_each_call(
    declared: dict[str, Any], stored: dict[str, Any], worker: Worker, configure: Callable[..., None]
) -> None:
    configure(ACCEPT_CONTENT=["json", "msgpack"])

    def body(x: int) -> None: ...

    shared_task(**declared)(body).delay(1)
    delivery = worker.claim()
    assert delivery is not None
    row = models.Task.objects.get()
    assert {name: getattr(row, name) for name in stored} == stored


@pytest.mark.parametrize("expires", [3600, 3600.0, timedelta(hours=1), datetime(2100, 1, 1)])
def test_expires_may_be_declared(expires: Any, worker: Worker) -> None:
    @shared_task(expires=expires)
    def soon() -> None: ...

    soon.delay()
    assert models.Task.objects.get().expires_at is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # Celery's, whose machinery is not here: refused, never swallowed.
        ({"time_limit": 0}, "time_limit is 0; allowed: None .no limit. or a number of seconds above 0"),
        ({"time_limit": "1m"}, "time_limit is '1m'; allowed"),
        ({"soft_time_limit": True}, "soft_time_limit is True; allowed"),
        ({"acks_on_timeout": True}, r"acks_on_timeout=…\) on .*has no redelivery of failed tasks"),
        ({"acks_on_failure_or_timeout": False}, "has no redelivery of failed tasks"),
        # Misspelt.
        ({"max_retry": 3}, "did you mean 'max_retries'"),
        ({"autoretryfor": ()}, "did you mean 'autoretry_for'"),
        ({"ignore_results": True}, "did you mean 'ignore_result'"),
        # Not for replacing.
        ({"retry": True}, "is a method of every task"),
        ({"run": None}, "is a method of every task"),
        # Bad values.
        ({"name": 5}, "name must be a string"),
        ({"name": "x" * 256}, "name must be a string"),
        ({"bind": 1}, "bind must be True or False"),
        ({"base": dict}, "base must be a subclass"),
        ({"queue": "no spaces"}, "queue is 'no spaces'; allowed"),
        ({"priority": 101}, "priority is 101; allowed"),
        ({"priority": "high"}, "priority is 'high'; allowed"),
        ({"max_retries": -1}, "max_retries is -1; allowed"),
        ({"max_retries": 1.5}, "max_retries is 1.5; allowed"),
        ({"default_retry_delay": "soon"}, "default_retry_delay is 'soon'; allowed"),
        ({"retry_backoff": "fast"}, "retry_backoff is 'fast'; allowed"),
        ({"retry_backoff_max": -1}, "retry_backoff_max is -1; allowed"),
        ({"retry_jitter": "some"}, "retry_jitter must be True or False, not 'some'"),
        ({"retry_kwargs": 3}, "retry_kwargs must be a dict, not 3"),
        ({"retry_kwargs": {"max_retry": 3}}, "retry_kwargs has 'max_retry', which retry"),
        ({"autoretry_for": ("ValueError",)}, "autoretry_for must hold exception classes"),
        ({"autoretry_for": 5}, "autoretry_for must hold exception classes, not"),
        ({"dont_autoretry_for": (int,)}, "dont_autoretry_for must hold exception classes"),
        ({"throws": ValueError("x")}, "throws must hold exception classes"),
        ({"typing": None}, "typing must be True or False"),
        ({"atomic": "yes"}, "atomic must be True or False"),
        ({"pydantic": 1}, "pydantic must be True or False"),
        ({"ignore_result": "no"}, "ignore_result must be True, False or None"),
        ({"acks_late": "late"}, "acks_late must be True, False or None"),
        ({"track_started": 1}, "track_started must be True, False or None"),
        ({"reject_on_worker_lost": 0}, "reject_on_worker_lost must be True, False or None"),
        ({"store_errors_even_if_ignored": False}, "failures are always kept"),
        ({"serializer": 5}, "serializer must be the name of a format"),
        ({"compression": True}, "compression must be the name of a format"),
        ({"expires": "soon"}, "expires must be a datetime or its ISO 8601 text"),
        ({"expires": 4e9}, "expires=4000000000.0 lies more than 95 years away"),
    ],
    ids=str,
)
def test_a_bad_option_is_an_error_where_the_task_is_declared(options: dict[str, Any], message: str) -> None:
    def refused() -> None: ...

    with pytest.raises(ImproperlyConfigured, match=message):
        shared_task(**options)(refused)
    assert f"{__name__}.refused" not in tasks


def test_an_option_of_a_feature_that_is_not_here_may_be_none() -> None:
    @shared_task(acks_on_timeout=None, time_limit=None)
    def limited() -> None: ...

    assert limited.name in tasks


def test_a_class_may_not_set_what_is_not_here_either() -> None:
    class Limited(Task[..., None]):
        acks_on_timeout = True

        def run(self) -> None: ...

    with pytest.raises(ImproperlyConfigured, match="acks_on_timeout: this version has no redelivery of failed tasks"):
        register_task(Limited)


def test_a_soft_time_limit_is_not_above_the_hard_one() -> None:
    with pytest.raises(ValueError, match=r"limited: soft_time_limit is 6; allowed: at most time_limit, here 5"):

        @shared_task(time_limit=5, soft_time_limit=6)
        def limited() -> None: ...


def test_a_generator_function_is_no_task_for_its_body_would_never_run() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> AsyncIterator[int]:
        yield 1

    class Numbers:
        __name__ = "numbers"

        def __call__(self) -> Iterator[int]:
            yield 1

    for function in (numbers, later, Numbers()):
        with pytest.raises(TypeError, match="is a generator function: its body would never run"):
            shared_task(name="tests.generator")(function)
    assert "tests.generator" not in tasks


def test_a_coroutine_function_is_known_in_whatever_it_is_wrapped() -> None:
    async def plain() -> int:
        return 1

    class Called:
        __name__ = "called"

        async def __call__(self) -> int:
            return 2

    part = partial(plain)
    part.__name__ = "part"  # type: ignore[attr-defined]

    class Classy(Task[..., Any]):
        name = "tests.classy"

        async def run(self) -> int:
            return 4

    functions: list[Any] = [plain, Called(), part]
    declared = [shared_task(name=f"tests.async{n}")(one) for n, one in enumerate(functions)]
    assert all(task.is_async for task in (*declared, register_task(Classy)))
    assert [task.apply().get() for task in declared] == [1, 2, 1]


def test_what_is_no_function_cannot_be_decorated() -> None:
    with pytest.raises(TypeError, match="options by name only"):
        shared_task("mail")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"not the class .*; register_task\(\) is for classes"):
        shared_task(Counter)
    with pytest.raises(TypeError, match="is for functions"):
        shared_task(partial(print, 1))


def test_bind_needs_a_parameter_for_the_task() -> None:
    def without() -> None: ...

    with pytest.raises(TypeError, match="declared with bind=True and so must take the task as its first argument"):
        shared_task(bind=True)(without)  # type: ignore[arg-type]


def test_one_exception_class_need_not_be_put_into_a_tuple() -> None:
    @shared_task(autoretry_for=ValueError, throws=[KeyError, TypeError])
    def careful() -> None: ...

    assert careful.autoretry_for == (ValueError,)
    assert careful.throws == (KeyError, TypeError)
