from __future__ import annotations

import gc
import logging
from typing import Any

import pytest

from django_tasks.signals import Signal


def a_name() -> str:
    # A new object at each call, as names out of a database are.
    return "".join(["app.tasks", ".add"])


@pytest.fixture
def signal() -> Signal:
    return Signal()


def test_connect_is_a_decorator_bare_and_with_arguments(signal: Signal) -> None:
    heard: list[str] = []

    @signal.connect
    def bare(**kwargs: Any) -> None:
        heard.append("bare")

    @signal.connect(sender="a", weak=False)
    def with_arguments(**kwargs: Any) -> None:
        heard.append("with arguments")

    signal.emit("a")
    signal.emit("b")
    assert heard == ["bare", "with arguments", "bare"]
    assert bare.__name__ == "bare"
    assert with_arguments.__name__ == "with_arguments"


def test_connect_returns_the_receiver_when_called_as_djangos(signal: Signal) -> None:
    def receiver(**kwargs: Any) -> None: ...

    assert signal.connect(receiver) is receiver


def test_a_sender_that_is_a_name_is_compared_by_value(signal: Signal) -> None:
    heard: list[str] = []

    @signal.connect(sender=a_name())
    def receiver(sender: str, **kwargs: Any) -> None:
        heard.append(sender)

    gc.collect()
    signal.emit(a_name())
    signal.send(a_name())
    signal.emit("app.tasks.other")
    assert heard == ["app.tasks.add", "app.tasks.add"]
    assert signal.disconnect(receiver, sender=a_name())
    signal.emit(a_name())
    assert len(heard) == 2


def test_a_receiver_that_raises_is_logged_and_the_others_still_hear(
    signal: Signal, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int] = []

    @signal.connect
    def broken(**kwargs: Any) -> None:
        raise ValueError("ouch")

    @signal.connect
    def sound(number: int, **kwargs: Any) -> None:
        heard.append(number)

    with caplog.at_level(logging.ERROR):
        signal.emit(None, number=1)
    assert heard == [1]
    [record] = caplog.records
    assert "broken" in record.getMessage()
    assert record.exc_info is not None


def test_bound_methods_of_two_objects_are_two_receivers_and_held_weakly(signal: Signal) -> None:
    class Listener:
        heard = 0

        def hear(self, **kwargs: Any) -> None:
            self.heard += 1

    one, other = Listener(), Listener()
    signal.connect(one.hear)
    signal.connect(other.hear)
    signal.emit(None)
    assert (one.heard, other.heard) == (1, 1)
    del other
    gc.collect()
    signal.emit(None)
    assert one.heard == 2
    assert len(signal.receivers) == 1


def test_a_dispatch_uid_connects_once(signal: Signal) -> None:
    heard: list[int] = []
    for _ in range(2):

        @signal.connect(dispatch_uid="once", weak=False)
        def receiver(**kwargs: Any) -> None:
            heard.append(1)

    signal.emit(None)
    assert heard == [1]
