"""Tasks that write down whatever happens to them: in the process that runs them, handlers and signals included.

The events go to the file that the environment names (:data:`EVENTS`), one JSON line each, so that those of all
processes lie in one place and in one order. A worker that imports this module connects its signals at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.contrib.auth.models import Group
from django.db import transaction

from django_tasks import Task, shared_task, signals
from django_tasks.exceptions import Ignore, Reject

#: Names the file of events.
EVENTS = "BEHAVIOUR_EVENTS"
#: Set in a worker's environment: it listens from its start.
LISTEN = "BEHAVIOUR_LISTEN"

SIGNALS = (
    *("before_task_publish", "after_task_publish", "task_prerun", "task_postrun", "task_success", "task_retry"),
    *("task_failure", "task_revoked", "task_unknown", "task_rejected", "task_internal_error"),
)
FACTS = ("result", "retval", "exception", "reason", "exc", "state", "expired", "terminated", "signum")
#: One of each type that arguments and results keep.
EVERYTHING: dict[str, Any] = {
    "none": None,
    "true": True,
    "int": 2**70,
    "float": 0.1,
    "text": "Zwölf Ähren \U0001f33e \\ \" '",
    "list": [1, [2, []]],
    "dict": {"deep": {"1": "one"}},
    "decimal": Decimal("1.10"),
    "date": date(2026, 2, 28),
    "time": time(12, 30, 1, 5),
    "datetime": datetime(2026, 2, 28, 12, 30, tzinfo=UTC),
    "duration": timedelta(days=-1, microseconds=1),
    "uuid": UUID(int=7),
    "bytes": b"\x00\xff",
}


class Odd(Exception):
    """An error of the tests' own."""


class Odder(Odd):
    """One that is expected."""


def record(event: str, root: str | None, task_id: str | None, *facts: Any) -> None:
    """Write down an event of the task of this id, which comes from the call ``root``."""
    line = json.dumps([root, task_id, event, *[shown(fact) for fact in facts]]) + "\n"
    descriptor = os.open(os.environ[EVENTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def shown(value: Any) -> Any:
    """Return a value in a form that is the same in every process."""
    if isinstance(value, BaseException):
        return [f"{type(value).__module__}.{type(value).__qualname__}", repr(value.args).partition(" at 0x")[0]]
    if isinstance(value, dict):
        return {str(key): shown(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [shown(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def read_events() -> list[list[Any]]:
    """Return all events, in their order."""
    try:
        with open(os.environ[EVENTS]) as file:
            return [json.loads(line) for line in file]
    except FileNotFoundError:
        return []


@contextmanager
def listening() -> Iterator[None]:
    """Write down the signals of this process within this block."""
    receivers = listen()
    try:
        yield
    finally:
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)


def listen() -> dict[str, Any]:
    """Write down the signals of this process from now on; return the receivers."""
    receivers = {name: _receiver(name) for name in SIGNALS}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver, weak=False)
    return receivers


def _receiver(name: str) -> Any:
    def receive(sender: Any, signal: Any, **told: Any) -> None:
        task = sender if isinstance(sender, str) else getattr(sender, "name", None)
        if task is None or not task.startswith(__name__):
            return
        if "headers" in told:
            headers, (args, kwargs, _) = told["headers"], told["body"]
            record(name, headers["root_id"], headers["id"], task, args, kwargs, told["routing_key"])
            return
        request = told.get("request") or told.get("message") or sender.request
        facts = {key: told[key] for key in FACTS if key in told}
        record(name, request.root_id or request.id, request.id, task, facts)

    return receive


class Watched(Task[..., Any]):
    """A task whose handlers, body and request are events."""

    def record(self, event: str, *facts: Any) -> None:
        """Write down an event of the call that runs."""
        record(event, self.request.root_id, self.request.id, *facts)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self.record("before_start", task_id == self.request.id, args, kwargs)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self.record("on_success", retval, args, kwargs)

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.record("on_failure", exc, args, kwargs, "Traceback" in str(einfo))

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.record("on_retry", exc, args, kwargs, "Traceback" in str(einfo))

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.record("after_return", status, retval, einfo is not None)

    def run_body(self) -> None:
        """Write down that the body runs, and what it may know of its call."""
        request = self.request
        names = ("task", "args", "kwargs", "retries", "attempt", "called_directly", "headers", "properties", "shadow")
        more = ("argsrepr", "kwargsrepr", "ignore_result", "delivery_info", "timelimit", "reply_to", "utc")
        same = [request.id == request.correlation_id, request.id == request.root_id, request.parent_id is None]
        dates = [request.eta is not None, request.expires is not None]
        self.record("body", {name: request.get(name) for name in (*names, *more)}, same, dates)


@shared_task(bind=True, base=Watched, default_retry_delay=0)
def succeed(self: Watched, /, *args: Any, **kwargs: Any) -> Any:
    self.run_body()
    return {"args": args, "kwargs": kwargs}


@shared_task(bind=True, base=Watched, default_retry_delay=0)
def nothing(self: Watched) -> None:
    self.run_body()


@shared_task(bind=True, base=Watched, default_retry_delay=0, throws=(Odder,))
def fail(self: Watched, how: str) -> Any:
    self.run_body()
    errors: dict[str, BaseException] = {
        "own": Odd("text", {"deep": [1, Decimal("1.10")]}),
        "expected": Odder("expected"),
        "builtin": KeyError("key"),
        "exit": SystemExit(3),
        "unstorable": Odd(object()),
    }
    if how == "chained":
        try:
            raise ValueError("first")
        except ValueError as error:
            raise Odd("second") from error
    if how == "result":
        return object()
    raise errors[how]


@shared_task(bind=True, base=Watched, default_retry_delay=0, max_retries=2)
def retry(self: Watched, /, until: int, **options: Any) -> int:
    self.run_body()
    if self.request.retries < until:
        raise self.retry(exc=Odd(f"attempt {self.request.retries}"), **options)
    return self.request.retries


@shared_task(bind=True, base=Watched, default_retry_delay=0, max_retries=1)
def retry_without_reason(self: Watched) -> None:
    self.run_body()
    self.retry()


@shared_task(bind=True, base=Watched, default_retry_delay=0)
def retry_and_go_on(self: Watched) -> str:
    self.run_body()
    if self.request.retries == 0:
        self.retry(throw=False)
    return "the end"


@shared_task(
    bind=True,
    base=Watched,
    autoretry_for=(Odd,),
    dont_autoretry_for=(Odder,),
    max_retries=2,
    retry_backoff=0.02,
    retry_jitter=False,
)
def retried_by_itself(self: Watched, until: int, error: str = "odd") -> int:
    self.run_body()
    if self.request.retries < until:
        raise {"odd": Odd, "odder": Odder, "value": ValueError}[error](self.request.retries)
    return self.request.retries


@shared_task(bind=True, base=Watched, default_retry_delay=0)
def end(self: Watched, how: str) -> Any:
    self.run_body()
    info = self.request.delivery_info or {}
    if how == "ignore":
        raise Ignore("nobody wants to know")
    if how == "reject" or (how == "requeue" and not info["redelivered"]):
        raise Reject("no", requeue=how == "requeue")
    if how in ("FAILURE", "SUCCESS"):
        self.update_state(state=how, meta=Odd("told") if how == "FAILURE" else {"told": True})
        raise Ignore
    self.update_state(state="PROGRESS", meta={"done": 1})
    return how


@shared_task(bind=True, base=Watched, default_retry_delay=0, ignore_result=True)
def unheard(self: Watched, fails: bool) -> str:
    self.run_body()
    if fails:
        raise Odd("kept all the same")
    return "dropped"


@shared_task(bind=True, base=Watched, default_retry_delay=0, atomic=True)
def all_or_nothing(self: Watched, name: str, fails: bool) -> int:
    self.run_body()
    Group.objects.create(name=name)
    succeed.delay(name)
    transaction.on_commit(lambda: self.record("on_commit"))
    if fails:
        raise Odd("nothing")
    return Group.objects.filter(name=name).count()


@shared_task(bind=True, base=Watched, default_retry_delay=0)
def outer(self: Watched, depth: int) -> list[Any]:
    self.run_body()
    sent = [inner.delay(depth - 1, "a"), inner.apply_async((0, "b"), queue="other", headers={"from": "outer"})]
    return [len({one.id for one in sent}), self.request.parent_id is None]


@shared_task(bind=True, base=Watched, default_retry_delay=0)
def inner(self: Watched, depth: int, label: str) -> int:
    self.run_body()
    if depth:
        inner.delay(depth - 1, f"{label}.")
    return depth


@shared_task(bind=True, base=Watched, default_retry_delay=0)
def continued(self: Watched, steps: list[str]) -> list[str]:
    self.run_body()
    if steps:
        self.apply_async((steps[1:],))
    return steps


@shared_task(bind=True, base=Watched, default_retry_delay=0, typing=False)
def strict(self: Watched, number: int) -> int:
    self.run_body()
    return number


@shared_task(bind=True, base=Watched, default_retry_delay=0)
async def asynchronous(self: Watched, fails: bool) -> int:
    self.run_body()
    await Group.objects.acreate(name=f"asynchronous {fails}")
    if fails:
        raise Odd("asynchronous")
    return await Group.objects.filter(name=f"asynchronous {fails}").acount()


@shared_task(
    bind=True,
    base=Watched,
    default_retry_delay=0,
    queue="declared",
    priority=7,
    serializer="msgpack",
    compression="gzip",
)
def declared(self: Watched, /, **kwargs: Any) -> Any:
    self.run_body()
    return kwargs


if LISTEN in os.environ:
    listen()
