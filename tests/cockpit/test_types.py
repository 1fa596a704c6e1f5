"""The pages of task types, and the form that is made from a signature."""

from __future__ import annotations

import enum
import html
import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client, override_settings

from django_tasks import shared_task
from django_tasks.cockpit.arguments_form import ArgumentsForm, signature_text
from django_tasks.models import Limit, Task, TaskType
from django_tasks.registry import tasks
from tests.admin.conftest import Browser
from tests.admin.pages import ids_in, read, text_of
from tests.rows import KNOWN, UNKNOWN, failure, finished, saved

pytestmark = pytest.mark.databases("sqlite")

INDEX = "/admin/django_tasks/tasktype/"


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@pytest.fixture
def declared() -> Iterator[Any]:
    @shared_task(name="forms.everything", queue="mail")
    def everything(
        first: int,
        /,
        text: str,
        ratio: float = 0.5,
        *rest: str,
        on: bool,
        day: date | None = None,
        price: Decimal | None = None,
        mode: Literal["fast", 7] = "fast",
        size: Size = Size.SMALL,
        data: dict[str, int] | None = None,
        **more: Any,
    ) -> None:
        """Do everything.

        And more.
        """

    yield everything
    tasks.pop("forms.everything", None)


def url(name: str) -> str:
    return f"{INDEX}{name.replace('_', '_5F').replace('/', '_2F')}/change/"


def call_of(task: Any, **given: str) -> tuple[list[Any], dict[str, Any]]:
    form = ArgumentsForm(task, {f"arg-{name}": value for name, value in given.items()})
    assert form.is_valid(), form.errors
    return form.call()


def test_what_is_left_empty_is_left_to_the_function(declared: Any) -> None:
    assert call_of(declared, first="1", text="", on="false") == ([1], {"text": "", "on": False})


def test_each_annotation_gives_a_value_of_its_kind(declared: Any) -> None:
    args, kwargs = call_of(
        declared,
        first="1", text=" a ", ratio="2.5", on="true", day="2026-10-25", price="1.10", mode="1", size="1",
        data='{"a": 1}', more='{"x": [1]}',
    )  # fmt: skip
    assert args == [1]
    assert kwargs == {
        "text": " a ", "ratio": 2.5, "on": True, "day": date(2026, 10, 25), "price": Decimal("1.10"), "mode": 7,
        "size": "l", "data": {"a": 1}, "x": [1],
    }  # fmt: skip


def test_what_stands_before_a_star_is_given_by_position(declared: Any) -> None:
    args, kwargs = call_of(declared, first="1", text="t", ratio="2", rest='["r", "s"]', on="true")
    assert (args, kwargs) == ([1, "t", 2.0, "r", "s"], {"on": True})
    declared._arguments.check(args, kwargs)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"text": "t", "on": "true"}, "first"),
        ({"first": "one", "text": "t", "on": "true"}, "first"),
        ({"first": "1", "on": ""}, "on"),
        ({"first": "1", "on": "true", "mode": "9"}, "mode"),
        ({"first": "1", "on": "true", "data": "{"}, "data"),
        ({"first": "1", "on": "true", "data": "1" * 5_000}, "data"),
        ({"first": "1", "on": "true", "data": "[" * 200_000}, "data"),
        ({"first": "1", "on": "true", "rest": "{}"}, "rest"),
        ({"first": "1", "on": "true", "more": "[]"}, "more"),
        ({"first": "1", "on": "true", "day": "yesterday"}, "day"),
    ],
)
def test_what_does_not_fit_is_said_beside_its_field(declared: Any, given: dict[str, str], wrong: str) -> None:
    form = ArgumentsForm(declared, {f"arg-{name}": value for name, value in given.items()})
    assert not form.is_valid()
    assert list(form.errors) == [f"arg-{wrong}"]
    assert form.as_p()


def test_a_signature_is_told_by_types_and_not_by_their_texts() -> None:
    assert signature_text(tasks[KNOWN]) == "(x: int, y: int = 0)"


def test_the_list_has_what_is_declared_and_what_ran(root: Client, declared: Any) -> None:
    page = read(root, INDEX)
    assert f'href="{url(KNOWN)}"' in page
    assert "Do everything." in text_of(page)


def test_a_page_tells_what_a_task_takes_and_how_it_was_declared(root: Client, declared: Any) -> None:
    text = text_of(read(root, url("forms.everything")))
    assert "forms.everything(first: int, /, text: str, ratio: float = 0.5, *rest: str, on: bool" in text
    assert "And more." in text
    assert "mail" in text


def test_a_task_of_another_release_has_a_page_without_a_form(root: Client) -> None:
    saved([finished(name=UNKNOWN)])
    page = read(root, url(UNKNOWN))
    assert "This process knows no task of that name" in text_of(page)
    assert 'value="send"' not in page
    assert root.post(url(UNKNOWN), {"action": "send"}).status_code == 404


def test_a_name_that_nobody_knows_has_no_page(root: Client) -> None:
    assert root.get(url("never.heard.of")).status_code == 404


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_what_nobody_knows_is_not_paused_and_that_is_said(root: Client, action: str) -> None:
    answer = root.post(url("never.heard.of"), {"action": action}, follow=True)
    assert "Nobody knows a task never.heard.of: nothing was changed." in answer.content.decode()
    assert answer.redirect_chain == [(INDEX, 302)]
    assert not Limit.objects.exists()
    saved([finished(name=UNKNOWN)])
    root.post(url(UNKNOWN), {"action": "pause"})
    assert Limit.objects.get().name == UNKNOWN, "what ran is known"


def test_a_task_is_sent_as_the_form_says(root: Client, declared: Any) -> None:
    form = {"arg-x": "3", "arg-y": "", "queue": "mail", "priority": "7", "countdown": "60", "action": "send"}
    response = root.post(url(KNOWN), form, follow=True)
    task = Task.objects.get()
    assert (task.name, task.body, task.queue, task.priority) == (KNOWN, '[[],{"x":3}]', "mail", 7)
    assert (task.due_at - task.created_at).total_seconds() == 60
    assert f"/admin/django_tasks/task/{task.pk}/change/" in response.content.decode()
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.get_change_message()) == (KNOWN, f"Sent as {task.pk}")
    assert entry.content_type is not None
    assert entry.content_type.model_class() is TaskType


def test_checking_sends_nothing(root: Client) -> None:
    response = root.post(url(KNOWN), {"arg-x": "3", "action": "check"})
    assert "The arguments fit." in response.content.decode()
    assert not Task.objects.exists()


@pytest.mark.parametrize("wrong", [{"arg-x": "three"}, {"queue": "no queue"}, {"priority": "101"}, {"countdown": "-1"}])
def test_what_cannot_be_sent_is_not(root: Client, wrong: dict[str, str]) -> None:
    response = root.post(url(KNOWN), {"arg-x": "3", "action": "send", **wrong})
    assert "errorlist" in response.content.decode()
    assert not Task.objects.exists()


def test_sending_is_for_who_may(browser: Browser) -> None:
    looks, sends = browser("view_tasktype"), browser("view_tasktype", "enqueue_task")
    blind = browser("enqueue_task")
    assert 'value="send"' not in read(looks, url(KNOWN))
    assert 'value="send"' in read(sends, url(KNOWN))
    form = {"arg-x": "3", "action": "send"}
    assert [client.post(url(KNOWN), form).status_code for client in (looks, blind, sends)] == [403, 403, 302]
    assert Task.objects.count() == 1
    with override_settings(DJANGO_TASKS={"ADMIN_READ_ONLY": True}):
        assert sends.post(url(KNOWN), form).status_code == 403


@pytest.mark.databases("sqlite", "postgresql")
@pytest.mark.parametrize("name", ["a%00b", "x" * 256])
def test_what_can_be_no_task_has_no_page(root: Client, name: str) -> None:
    assert root.get(f"{INDEX}{name}/change/").status_code == 404


@pytest.fixture
def by_place() -> Iterator[Any]:
    @shared_task(name="forms.by_place")
    def by_place(a: int = 1, b: int = 2, /, c: int = 3, *rest: int, d: int = 4, **more: int) -> None:
        pass

    yield by_place
    tasks.pop("forms.by_place", None)


@pytest.mark.parametrize(
    ("given", "call"),
    [
        ({}, ([], {})),
        ({"a": "5"}, ([5], {})),
        ({"b": "5"}, ([1, 5], {})),
        ({"c": "5"}, ([], {"c": 5})),
        ({"b": "5", "c": "6"}, ([1, 5], {"c": 6})),
        ({"rest": "[9]"}, ([1, 2, 3, 9], {})),
        ({"c": "5", "rest": "[9]"}, ([1, 2, 5, 9], {})),
        ({"d": "5", "rest": "[9, 8]", "more": '{"x": 7}'}, ([1, 2, 3, 9, 8], {"d": 5, "x": 7})),
    ],
)
def test_every_value_arrives_where_it_was_typed(by_place: Any, given: dict[str, str], call: Any) -> None:
    """What is left empty before a value that is given by its place is filled with the function's own default."""
    args, kwargs = call_of(by_place, **given)
    assert (args, kwargs) == call
    values = by_place._arguments.signature.bind(*args, **kwargs)
    values.apply_defaults()
    for name in ("a", "b", "c", "d"):
        assert str(values.arguments[name]) == given.get(
            name, str(by_place._arguments.signature.parameters[name].default)
        )


def test_checking_refuses_what_sending_would(root: Client, settings: Any) -> None:
    pydantic = pytest.importorskip("pydantic")
    order = pydantic.create_model("Order", id=(int, ...), note=(str, ""))

    def ship(order: Any) -> None:
        pass

    ship.__annotations__["order"] = order
    shared_task(name="forms.ship", pydantic=True)(ship)
    try:
        for given in ('{"id": "x"}', f'{{"id": 1, "note": "{"x" * 2_000}"}}'):
            settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "PAYLOAD_LIMIT": 1_024}
            for action in ("check", "send"):
                answer = root.post(url("forms.ship"), {"arg-order": given, "action": action}).content.decode()
                assert "errorlist" in answer, (given, action)
                assert "The arguments fit." not in answer
        answer = root.post(url("forms.ship"), {"arg-order": '{"id": "7"}', "action": "check"}).content.decode()
        assert "The arguments fit." in answer
    finally:
        tasks.pop("forms.ship")
    assert not Task.objects.exists()


def test_what_fails_leads_to_these_very_failures(root: Client) -> None:
    bare, named, odd = saved([failure(exception=""), failure(), failure(exception="so: odd", name=KNOWN)])
    saved([failure(exception='say "when"')])
    page = read(root, url(KNOWN))
    found = [html.unescape(one) for one in re.findall(r'href="([^"]*q=exc[^"]*)"', page)]
    assert {tuple(ids_in(read(root, one))) for one in found} == {(str(row.pk),) for row in (bare, named, odd)}
