"""Waiting in tests: poll for what must become true, never sleep and hope."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: The pause between two looks grows from the first to the second, in seconds.
SHORTEST_PAUSE = 0.002
LONGEST_PAUSE = 0.1


def eventually(condition: Callable[[], T], *, timeout: float = 10, message: str = "") -> T:
    """Call ``condition`` until it returns something true, and return that.

    An ``AssertionError`` inside the condition counts as "not yet"; any other exception is an error at once.
    ``timeout`` is in seconds; the condition is always called at least once, and once more at the end.

    Raises ``AssertionError`` with ``message`` and the last value (or the last assertion) when time is up.
    """
    deadline = time.monotonic() + timeout
    pause = SHORTEST_PAUSE
    while True:
        late = time.monotonic() >= deadline
        failure: AssertionError | None = None
        try:
            value = condition()
        except AssertionError as error:
            failure, last = error, f"the last look failed with: {error}"
        else:
            if value:
                return value
            last = f"the last value was {value!r}"
        if late:
            raise AssertionError(f"{message or 'not true'} within {timeout:g} s; {last}") from failure
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
