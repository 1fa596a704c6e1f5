"""Registering what calls take along, and calls that run where they are made."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils import translation

from django_tasks import register_context, shared_task, states
from django_tasks.context_hooks import captured, unregister_context
from django_tasks.exceptions import EncodeError

here: list[Any] = []


class Hook:
    """Takes the last of a list along."""

    def capture(self) -> Any:
        return here[-1] if here else None

    @contextmanager
    def restore(self, value: Any) -> Iterator[None]:
        here.append(value)
        try:
            yield
        finally:
            here.pop()


@pytest.fixture
def hook() -> Iterator[str]:
    register_context("tests.here")(Hook)
    yield "tests.here"
    unregister_context("tests.here")
    here.clear()


@shared_task
def tell() -> list[Any]:
    return list(here)


@shared_task
def tell_language() -> str:
    return translation.get_language()


def test_an_eager_call_takes_it_along_as_a_worker_s_would(hook: str) -> None:
    assert tell.apply().get() == []
    here.append({"id": 5})
    assert tell.apply().get() == [{"id": 5}, {"id": 5}]
    assert here == [{"id": 5}]


def test_the_language_comes_along_where_the_settings_say_so() -> None:
    with translation.override("de"):
        assert captured() is None
        with override_settings(DJANGO_TASKS={"TASK_CONTEXT": ["language"]}):
            assert captured() == {"language": "de"}
            assert tell_language.apply().get() == "de"


@shared_task(bind=True)
def tell_origin(self: Any) -> Any:
    return self.request.origin


def test_the_process_comes_along_where_the_settings_say_so() -> None:
    assert tell_origin.apply().get() is None
    with override_settings(DJANGO_TASKS={"TASK_CONTEXT": ["origin"]}):
        assert tell_origin.apply().get() == f"gen{os.getpid()}@{socket.gethostname()}"


def test_what_cannot_be_stored_is_told_to_the_sender(hook: str) -> None:
    here.append(object())
    with pytest.raises(EncodeError):
        tell.apply()


def test_a_hook_that_is_not_known_where_the_task_runs_fails_it(hook: str) -> None:
    here.append(1)

    @shared_task
    def forgetful() -> None: ...

    from django_tasks import client
    from django_tasks.eager import run_eagerly

    message = client.build(forgetful.name, [], {}, {}, forgetful)
    unregister_context(hook)
    try:
        result = run_eagerly(message, throw=False)
    finally:
        register_context(hook)(Hook)
    assert result.state == states.FAILURE
    assert "for which this worker has no @register_context('tests.here')" in str(result.result)


@pytest.mark.parametrize(
    ("name", "given", "problem"),
    [
        ("language", Hook, "the name is taken"),
        ("", Hook, "its name must be a text"),
        ("tests.other", object(), r"has no method capture\(\)"),
    ],
)
def test_a_bad_hook_is_refused(name: str, given: Any, problem: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=problem):
        register_context(name)(given)


def test_a_name_is_given_once(hook: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="the name is taken"):
        register_context(hook)(Hook)
