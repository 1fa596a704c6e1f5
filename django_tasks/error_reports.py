"""What is stored of an error that ends an attempt: its outcome, its traceback, and one line for lists."""

from __future__ import annotations

import traceback as tracebacks
from pathlib import Path
from typing import Any, Final, Protocol

from . import own_code, states
from .backends.message import Outcome
from .redaction import Secrets
from .serialization import dumps, exception_to_data, storable

#: Characters of a traceback that are kept: its head and, mostly, its end.
TRACEBACK_LIMIT: Final = 65_536
#: Files whose frames say nothing about the task.
_OURS: Final = frozenset(str(Path(__file__).with_name(f"{name}.py")) for name in ("executor", "task", "interrupts"))


class Attempt(Protocol):
    """What proves who speaks of a task."""

    @property
    def id(self) -> str: ...
    @property
    def attempt(self) -> int: ...


def failure(
    delivery: Attempt,
    error: BaseException,
    *,
    state: str = states.FAILURE,
    text: str | None = None,
    runtime: float | None = None,
    hidden: Secrets | None = None,
) -> Outcome:
    """Return the outcome of an attempt that ended by ``error``, without what is ``hidden``."""
    told = exception_to_data(error)
    place = own_code.Place.of(error)
    front = {} if place is None else {own_code.KEY: list(place)}
    encoding, data = dumps({**front, **(told if hidden is None else hidden.scrub_all(told))})
    return Outcome(
        delivery.id,
        delivery.attempt,
        state,
        result=data,
        result_encoding=encoding,
        exception=headline(error, hidden)[:255],
        traceback=text,
        runtime=runtime,
        linked=getattr(delivery, "linked", True),  # who ends it from outside does not know
    )


def traceback_text(error: BaseException, hidden: Secrets | None = None) -> str:
    """Return the traceback as storable text of bounded length, without what is ``hidden``; frames of this package are
    left out."""
    told: Any = tracebacks.TracebackException.from_exception(error)
    _leave_ours_out(told)
    text = scrubbed(storable("".join(told.format())), hidden)
    if len(text) > TRACEBACK_LIMIT:
        half = TRACEBACK_LIMIT // 2
        text = f"{text[:half]}\n… {len(text) - TRACEBACK_LIMIT:,} characters left out …\n{text[-half:]}"
    return text


def _leave_ours_out(told: Any) -> None:
    rest = [told]
    while rest:
        one = rest.pop()
        own = [frame for frame in one.stack if frame.filename not in _OURS]
        one.stack = tracebacks.StackSummary.from_list(own or one.stack)
        rest += [other for other in (one.__cause__, one.__context__) if other is not None]
        rest += getattr(one, "exceptions", None) or ()


def scrubbed(text: str, hidden: Secrets | None) -> str:
    """Return a text without what is ``hidden``."""
    return text if hidden is None else hidden.scrub(text)


def headline(error: BaseException, hidden: Secrets | None = None) -> str:
    """Return class and text of an error in one line, without what is ``hidden``."""
    try:
        message = scrubbed(str(error), hidden)
    except Exception:
        message = "<no text: its __str__ failed>"
    return storable(" ".join(f"{type(error).__name__}: {message}".split()))
