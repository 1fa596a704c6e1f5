"""Outcomes that no attempt wrote: the broker itself says how a task ended."""

from __future__ import annotations

from .. import exceptions, states
from ..serialization import dumps, exception_to_data, storable
from .message import Outcome, Return


def revoked(task_id: str, attempt: int) -> Outcome:
    """Somebody revoked it."""
    return failure(task_id, attempt, exceptions.TaskRevokedError("revoked"), state=states.REVOKED)


def unstorable(one: Outcome | Return, error: Exception) -> Outcome:
    """What became of it cannot be stored."""
    problem = exceptions.EncodeError(f"The outcome {one.state} could not be stored: {storable(str(error))[:500]}")
    return failure(one.id, one.attempt, problem, runtime=one.runtime if isinstance(one, Outcome) else None)


def failure(
    task_id: str, attempt: int, error: Exception, *, state: str = states.FAILURE, runtime: float | None = None
) -> Outcome:
    """It ended by an error that its body did not raise; ``runtime`` in seconds."""
    encoding, text = dumps(exception_to_data(error))
    return Outcome(
        task_id,
        attempt,
        state,
        result=text,
        result_encoding=encoding,
        exception=f"{type(error).__name__}: {error}"[:255],
        runtime=runtime,
        linked=True,
    )
