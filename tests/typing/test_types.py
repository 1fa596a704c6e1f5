"""What type checkers see: parameters and return types pass through ``@shared_task`` to ``delay`` and ``get``.

mypy checks this file with all the others; every ``type: ignore`` below must be needed, so each is a wrong call found.
Nothing here is run but the last test.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, assert_type

import pytest

from django_tasks import AsyncResult, EagerResult, Task, current_task, register_task, send_task, shared_task
from django_tasks.result import result_from_tuple


@shared_task
def plain(x: int, y: str = "", *, z: bool = False) -> list[str]:
    return [y] * x if z else []


@shared_task(queue="images", max_retries=None)
def with_options(x: int) -> float:
    return x / 2


@shared_task(bind=True, autoretry_for=(OSError,))
def bound(self: Task[..., Any], x: int, y: str = "") -> str:
    return f"{self.request.retries}{x}{y}"


@shared_task(bind=True)
def bound_without_annotation(self, x: int) -> str:  # type: ignore[no-untyped-def]
    return str(x)


@shared_task(bind=True)
def bound_with_keywords(self: Task[..., Any], /, x: int, **more: int) -> str:
    return str(x)


@shared_task(bind=False)
def not_bound(x: int) -> str:
    return str(x)


@shared_task
async def asynchronous(x: int) -> bytes:
    return bytes(x)


@shared_task(bind=True)
async def bound_asynchronous(self: Task[..., Any], x: int) -> bytes:
    return bytes(x)


class Loud(Task[..., Any]):
    volume = 11


@shared_task(base=Loud, bind=True)
def with_base(self: Loud, x: int) -> int:
    return x * self.volume


class Greeter(Task[[str], str]):
    def run(self, name: str) -> str:
        return f"hello {name}"


greeter = register_task(Greeter)


def the_task_keeps_the_function_s_parameters() -> None:
    plain(1, "a", z=True)
    plain.delay(1, "a", z=True)
    plain.delay("1")  # type: ignore[arg-type]
    plain.delay()  # type: ignore[call-arg]
    plain.delay(1, w=2)  # type: ignore[call-arg]
    plain("1")  # type: ignore[arg-type]
    with_options.delay("1")  # type: ignore[arg-type]
    not_bound.delay("1")  # type: ignore[arg-type]
    greeter.delay(5)  # type: ignore[arg-type]


def a_bound_task_is_called_without_its_self() -> None:
    bound(1, "a")
    bound.delay(1, y="a")
    bound.delay("1")  # type: ignore[arg-type]
    bound.delay(bound, 1)  # type: ignore[arg-type]
    bound_without_annotation.delay("1")  # type: ignore[arg-type]
    with_base.delay("1")  # type: ignore[arg-type]
    bound_asynchronous.delay("1")  # type: ignore[arg-type]
    bound_with_keywords.delay(1, more=2)


def the_result_keeps_the_function_s_return_type() -> None:
    assert_type(plain(1), list[str])
    assert_type(plain.delay(1), AsyncResult[list[str]])
    assert_type(plain.delay(1).get(timeout=5), list[str])
    assert_type(plain.apply_async((1,), countdown=5), AsyncResult[list[str]])
    assert_type(plain.apply_async((1,)).get(), list[str])
    assert_type(plain.apply((1,)), EagerResult[list[str]])
    assert_type(plain.apply((1,)).get(), list[str])
    assert_type(plain.delay_on_commit(1).get(), list[str])
    assert_type(plain.enqueue_many([(1,)])[0].get(), list[str])
    assert_type(plain.AsyncResult("id").get(), list[str])
    assert_type(with_options.delay(1).get(), float)
    assert_type(bound(1), str)
    assert_type(bound.delay(1).get(), str)
    assert_type(bound.apply_async((1,)).get(), str)
    assert_type(bound_without_annotation.delay(1).get(), str)
    assert_type(bound_with_keywords.delay(1).get(), str)
    assert_type(not_bound.delay(1).get(), str)
    assert_type(with_base.delay(1).get(), int)
    assert_type(greeter.delay("you").get(), str)


async def asynchronous_tasks_and_callers_are_typed() -> None:
    assert_type(await assert_type(asynchronous(1), Coroutine[Any, Any, bytes]), bytes)
    assert_type(asynchronous.delay(1).get(), bytes)
    assert_type(bound_asynchronous.delay(1).get(), bytes)
    assert_type(await asynchronous.delay(1).aget(), bytes)
    assert_type(await plain.adelay(1), AsyncResult[list[str]])
    assert_type(await (await plain.adelay(1)).aget(), list[str])
    assert_type(await (await plain.aapply_async((1,))).aget(timeout=5), list[str])
    await plain.adelay("1")  # type: ignore[arg-type]


def the_rest_is_typed() -> None:
    assert_type(plain.name, str)
    assert_type(plain.delay(1).id, str)
    assert_type(plain.delay(1).state, str)
    assert_type(plain.delay(1).ready(), bool)
    assert_type(plain.delay(1).traceback, str | None)
    assert_type(plain.request.id, str | None)
    assert_type(send_task("elsewhere").get(), Any)
    assert_type(result_from_tuple([["id", None], None]).id, Any)
    assert_type(current_task.request, Any)


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_this_file_passes_mypy() -> None:
    """K5: parameters and return types survive, under the settings of the project."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", __file__], cwd=root, capture_output=True, text=True, check=False, timeout=110
    )
    assert [line for line in done.stdout.splitlines() if "tests/typing/" in line] == []
    assert "checked 1 source file" in done.stdout or "no issues found" in done.stdout, done.stdout + done.stderr
