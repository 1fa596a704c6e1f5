"""Arguments that nobody is to read (S6, J2): a canary that must be nowhere but in the task's own hands."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from django_tasks import AsyncResult, Task, chain, models, shared_task, signals
from django_tasks.display import arguments
from django_tasks.models import TaskResult
from django_tasks.redaction import HIDDEN, REDACTED, Secrets, hidden_call
from tests.api.conftest import Runner
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")

#: No moment or id has it by chance.
PIN = 4_111_222_233_334
CANARY = f'canary\'s "{PIN}" ü'
#: How it would look in SQL, in JSON and in a repr.
TRACES = ("canary", str(PIN))

seen: list[Any] = []


class Declined(Exception):
    """Quotes what it was given."""


@shared_task(bind=True, sensitive=("card", "pin"), max_retries=1, default_retry_delay=0)
def charge(self: Task[..., Any], /, order: int, card: Any, how: str = "pay", **rest: Any) -> str:
    seen.append((card, rest))
    if how == "fail":
        try:
            raise ValueError(f"no {card}")
        except ValueError as error:
            raise Declined(card, {"pin": rest.get("pin"), "order": order}) from error
    if how == "retry":
        raise self.retry(exc=Declined(f"later: {card!r}"))
    if how == "exhaust":
        self.retry()
    return "paid"


@shared_task(sensitive="password")
def log_in(user: str, password: str = "") -> str:
    seen.append(password)
    return user


@shared_task
def name_of(user: str) -> str:
    return user


@pytest.fixture(autouse=True)
def _fresh() -> None:
    seen.clear()


def stored_texts() -> str:
    """Return everything that the ledger has."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM django_tasks_taskresult")
        return repr(cursor.fetchall())


def leaks(text: str) -> list[str]:
    """Return what is in this text that should not be."""
    return [trace for trace in TRACES if trace in text]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("how", ["fail", "retry", "exhaust"])
def test_what_an_error_quotes_is_hidden_wherever_it_is_kept_or_told(
    run: Runner, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []

    def on_failure(sender: Any, einfo: Any, **named: Any) -> None:
        told.append(einfo.traceback)

    run.configure(TASK_STORE_EAGER_RESULT=True)
    signals.task_failure.connect(on_failure)
    try:
        with caplog.at_level(logging.DEBUG):
            result = run(charge, 7, CANARY, how, pin=PIN)
    finally:
        signals.task_failure.disconnect(on_failure)
    assert result.state == "FAILURE"
    assert seen[0] == (CANARY, {"pin": PIN}), "the task itself gets the real thing"
    [row] = TaskResult.objects.all()
    kept = f"{row.result} {row.exception} {row.traceback} {row.history}"
    assert not leaks(f"{kept} {told}")
    assert not leaks(caplog.text)
    assert HIDDEN in kept
    if how == "fail":
        assert "Declined" in caplog.text
        assert "Traceback" in caplog.text


def test_success_takes_the_sensitive_arguments_out_of_the_ledger(worker: Worker) -> None:
    charge.delay(7, CANARY, pin=PIN, note="open")
    log_in.delay("anna")
    worker.drain()
    assert seen == [(CANARY, {"pin": PIN, "note": "open"}), ""]
    assert not leaks(stored_texts())
    row, other = TaskResult.objects.get(name=charge.name), TaskResult.objects.get(name=log_in.name)
    assert (row.encoding, json.loads(row.body)) == (REDACTED, [[7, HIDDEN], {"pin": HIDDEN, "note": "open"}])
    assert (other.encoding, json.loads(other.body)) == ("", [["anna"], {}]), "nothing was there to be taken out"
    result: AsyncResult[Any] = AsyncResult(str(row.pk))
    assert (result.get(), result.args) == ("paid", [7, HIDDEN])


def test_a_failure_keeps_them_to_be_run_again(worker: Worker) -> None:
    result = charge.delay(7, CANARY, "fail")
    worker.drain()
    [row] = TaskResult.objects.all()
    assert json.loads(row.body)[0][1] == CANARY
    assert result.args == [7, CANARY, "fail"]


def test_what_comes_before_them_in_a_chain_is_counted(worker: Worker) -> None:
    chain(name_of.s("anna"), log_in.s(CANARY)).delay()
    waiting = models.Task.objects.get(name=log_in.name)
    assert [(one.name, one.value.text) for one in arguments(waiting, full=True)] == [("password", HIDDEN)]
    worker.drain()
    assert seen == [CANARY]
    row = TaskResult.objects.get(name=log_in.name)
    assert json.loads(row.body) == [[HIDDEN], {}]
    assert row.result == '"anna"'


@pytest.mark.databases("sqlite")
def test_texts_that_stand_for_a_call_hide_them(worker: Worker) -> None:
    told: list[Any] = []

    def sent(sender: Any, headers: Any, **named: Any) -> None:
        told.append(headers)

    signals.after_task_publish.connect(sent)
    try:
        charge.delay(7, CANARY, pin=PIN)
        log_in.delay("anna", password=CANARY)
    finally:
        signals.after_task_publish.disconnect(sent)
    texts = [
        *(f"{one['argsrepr']} {one['kwargsrepr']}" for one in told),
        repr(charge.s(7, CANARY)),
        repr(log_in.s(CANARY)),
    ]
    texts.append(repr(charge.si(7, card=CANARY, api_key="canary")))
    charge.push_request(args=[7, CANARY], kwargs={"pin": PIN}, task=charge.name)
    texts.append(repr(charge.request))
    charge.pop_request()
    assert not leaks(" ".join(texts))
    assert told[0]["argsrepr"] == f"(7, '{HIDDEN}')"


def test_a_task_that_is_not_known_here_any_more_is_hidden_by_what_its_message_says() -> None:
    args, kwargs = hidden_call("gone.task", ["a", CANARY], {"pin": 1, "open": 2}, {"sensitive": ["pin", "card"]})
    assert (args, kwargs) == ([HIDDEN, HIDDEN], {"pin": HIDDEN, "open": 2})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"sensitive": ("passwrd",)}, "sensitive names 'passwrd'; the task takes"),
        ({"sensitive": 3}, "sensitive is 3; allowed: the name of an argument, or several"),
        ({"sensitive": "password", "key": "password", "rate_limit": "1/s"}, "key names 'password', which is sensitive"),
    ],
)
def test_a_declaration_that_cannot_be_kept_is_refused(options: dict[str, Any], problem: str) -> None:
    def send(user: str, password: str) -> None: ...

    with pytest.raises(ImproperlyConfigured, match=problem):
        shared_task(**options)(send)


def test_what_the_rest_of_the_parameters_takes_can_be_sensitive() -> None:
    @shared_task(sensitive=("numbers", "fields"))
    def take(first: int, *numbers: int, **fields: int) -> None: ...

    assert hidden_call(take.name, (1, 2, 3), {"a": 4}) == ((1, HIDDEN, HIDDEN), {"a": HIDDEN})


@pytest.mark.parametrize(
    ("values", "text", "shown"),
    [
        (["hunter2"], "no hunter2, nor hunter22", f"no {HIDDEN}, nor {HIDDEN}2"),
        ([737], "cvv 737 of order 7371", f"cvv {HIDDEN} of order 7371"),
        ([{"deep": ["sec\nret"]}], "a 'sec\\nret' b sec\nret", f"a '{HIDDEN}' b {HIDDEN}"),
        ([b"bytes!"], "b'bytes!'", f"b'{HIDDEN}'"),
        ([None, True, ""], "None True", "None True"),
        ([list(range(5000))], "anything", HIDDEN),
    ],
)
def test_values_are_found_in_texts(values: list[Any], text: str, shown: str) -> None:
    assert Secrets(values).scrub(text) == shown


@pytest.mark.databases("sqlite")
def test_pydantic_does_not_quote_them(worker: Worker) -> None:
    pydantic = pytest.importorskip("pydantic")

    @shared_task(pydantic=True, sensitive="pin")
    def pay(order: int, pin: int) -> None: ...

    with pytest.raises(pydantic.ValidationError) as caught:
        pay.delay(1, "canary")  # type: ignore[arg-type]
    assert not leaks(f"{caught.value} {caught.value.errors()}")
    with pytest.raises(pydantic.ValidationError, match="no-number"):
        pay.delay("no-number", 1)  # type: ignore[arg-type]
