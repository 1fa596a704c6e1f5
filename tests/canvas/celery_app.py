"""Celery as it is, to be asked what it would have built."""

from __future__ import annotations

from typing import Any

import celery
from celery.canvas import StampingVisitor, chunks, maybe_signature
from celery.canvas import signature as celery_signature

app = celery.Celery("asked", broker="memory://", backend="cache+memory://", set_as_current=False)
app.set_current()


@app.task(name="tests.app.tasks.add")  # type: ignore[untyped-decorator]
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(name="tests.app.tasks.noop")  # type: ignore[untyped-decorator]
def noop(*args: Any, **kwargs: Any) -> None:
    pass


class Celery:
    """Celery's side of the names that both have."""

    chain, group, chord = celery.chain, celery.group, celery.chord
    signature = staticmethod(celery_signature)
    maybe_signature = staticmethod(maybe_signature)
    chunks = chunks
    StampingVisitor = StampingVisitor
    add, noop = add, noop
