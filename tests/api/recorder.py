"""Writes down which handlers and signals a task causes, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django_tasks import Task, signals

#: What was called, with the facts that tell one call from another.
Entry = tuple[Any, ...]

SIGNALS = (
    *("before_task_publish", "after_task_publish", "task_received", "task_prerun", "task_postrun", "task_success"),
    *("task_retry", "task_failure", "task_revoked", "task_unknown", "task_rejected", "task_internal_error"),
)


class Recorded(Task[..., Any]):
    """A task whose handlers write into :attr:`log`."""

    log: list[Entry] = []

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self.log.append(("before_start", list(args), kwargs))

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self.log.append(("on_success", retval, list(args), kwargs))

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.log.append(("on_failure", _error(exc), list(args), kwargs, _error(einfo.exception)))

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.log.append(("on_retry", _error(exc), list(args), kwargs, "Traceback" in str(einfo)))

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.log.append(("after_return", status, _value(retval), list(args), kwargs, einfo is not None))


@contextmanager
def recording() -> Iterator[list[Entry]]:
    """Give the list into which every handler of a :class:`Recorded` task and every signal is written meanwhile."""
    log: list[Entry] = []
    before, Recorded.log = Recorded.log, log
    receivers = {name: _receiver(name, log) for name in SIGNALS}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver, weak=False)
    try:
        yield log
    finally:
        Recorded.log = before
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)


def names(log: list[Entry]) -> list[str]:
    """Return the names of what was called."""
    return [entry[0] for entry in log]


def _receiver(name: str, log: list[Entry]) -> Any:
    def receive(sender: Any, signal: Any, **told: Any) -> None:
        interesting = ("result", "retval", "exception", "reason", "exc", "state", "expired", "terminated", "signum")
        facts = {key: _value(told[key]) for key in interesting if key in told}
        log.append((name, getattr(sender, "name", None), facts))

    return receive


def _value(value: Any) -> Any:
    return _error(value) if isinstance(value, BaseException) else value


def _error(error: BaseException | None) -> Any:
    return error if error is None else (type(error).__name__, str(error))
