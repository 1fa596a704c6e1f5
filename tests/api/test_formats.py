"""In which format arguments and results are stored: by call, by task, by setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from django_tasks import formats, models, shared_task
from django_tasks.exceptions import ContentDisallowed, EncodeError
from django_tasks.serialization import register, register_compression, unregister
from tests.api.conftest import Runner
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "redis")

NEEDS = {"msgpack": "msgpack", "yaml": "yaml", "zstd": "zstandard"}
VALUE = {"text": "Ünïcode 🎈", "number": 2**40, "day": date(2026, 1, 2), "price": Decimal("1.10"), "bytes": b"\x00\xff"}


@shared_task
def echo(value: Any) -> Any:
    return value


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml"])
@pytest.mark.parametrize("compression", [None, "gzip", "zlib", "zstd"])
def test_arguments_and_results_travel_in_any_format(serializer: str, compression: str | None, run: Runner) -> None:
    for name in {serializer, compression} & NEEDS.keys():
        pytest.importorskip(NEEDS[str(name)])
    run.configure(ACCEPT_CONTENT=["json", serializer], RESULT_SERIALIZER=serializer, RESULT_COMPRESSION=compression)
    result = run.apply(echo, (VALUE,), serializer=serializer, compression=compression)
    assert (result.get(), result.args) == (VALUE, [VALUE])
    if not run.is_eager:
        row = models.TaskResult.objects.get()
        expected = (
            "" if (serializer, compression) == ("json", None) else "+".join(filter(None, (serializer, compression)))
        )
        assert (row.encoding, row.result_encoding) == (expected, expected)


def test_the_call_says_more_than_the_task_and_the_task_more_than_the_settings(
    worker: Worker, configure: Callable[..., None]
) -> None:
    configure(TASK_SERIALIZER="msgpack", TASK_COMPRESSION="gzip", ACCEPT_CONTENT=["json", "application/x-msgpack"])

    @shared_task(serializer="json", compression="zlib")
    def declared(value: Any) -> Any:
        return value

    results = [
        echo.delay(1),
        echo.apply_async((1,), serializer="json"),
        declared.delay(1),
        declared.apply_async((1,), serializer="msgpack", compression="gzip"),
    ]
    encodings = [models.Task.objects.get(pk=result.id).encoding for result in results]
    assert encodings == ["msgpack+gzip", "json+gzip", "json+zlib", "msgpack+gzip"]
    worker.drain()
    assert [result.get() for result in results] == [1, 1, 1, 1]


def test_pickle_is_refused_unless_the_settings_say_so_twice(run: Runner) -> None:
    """J1: pickle can run any code."""
    for unsafe, accept in [(False, ["json"]), (False, ["json", "pickle"]), (True, ["json"])]:
        run.configure(ALLOW_UNSAFE_PICKLE=unsafe, ACCEPT_CONTENT=accept)
        with pytest.raises(ContentDisallowed, match="pickle can run any code"):
            echo.apply_async((1,), serializer="pickle")
    run.configure(ALLOW_UNSAFE_PICKLE=True, ACCEPT_CONTENT=["json", "pickle"])
    assert run.apply(echo, ((1, 2),), serializer="pickle").args == ((1, 2),)


def test_what_a_format_cannot_carry_is_refused_when_the_task_is_called(run: Runner) -> None:
    for value in (object(), {1: 2, "1": 3}, float("nan"), [lambda: None]):
        with pytest.raises(EncodeError):
            echo.delay(value)
    assert not models.Task.objects.exists()


@pytest.fixture
def shouting(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Register a serializer and a compression of our own."""
    monkeypatch.setattr(formats, "_compressions", dict(formats._compressions))  # these cannot be unregistered
    register("shout", lambda value: repr(value).upper(), lambda text: text, "text/x-shout", "utf-8")
    register_compression("backwards", lambda content: content[::-1], lambda content: content[::-1])
    yield "shout"
    unregister("shout")


def test_a_site_may_register_formats_of_its_own(shouting: str, run: Runner) -> None:
    run.configure(RESULT_SERIALIZER="shout", ACCEPT_CONTENT=["json", "text/x-shout"])
    result = run.apply(echo, ("hello",), compression="backwards")
    assert result.get() == "'HELLO'"
