"""Canvases and results as plain data without ids, so that ours and Celery's can be compared."""

from __future__ import annotations

import json
from typing import Any


def shape(sig: Any) -> Any:
    """Return a signature as JSON would have it, under our names and without what only Celery's machinery needs."""
    return _plain(json.loads(json.dumps(sig, default=list)))


def text(sig: Any) -> str:
    """Return what ``repr()`` says, under our names; whether a sequence is a list or a tuple does not count."""
    said = repr(sig).replace("celery.", "django_tasks.")
    return said.translate(str.maketrans("()", "[]")).replace(",]", "]")


def results(result: Any) -> Any:
    """Return a tree of results as nested tuples in which each id is the number of its first appearance."""
    numbers: dict[str, int] = {}

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return numbers.setdefault(value, len(numbers))
        return [walk(one) for one in value] if isinstance(value, list | tuple) else value

    return walk(result.as_tuple())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key not in ("reply_to", "chord_size")}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return value.replace("celery.", "django_tasks.", 1) if value.startswith("celery.") else value
    return value
