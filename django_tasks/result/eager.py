"""``EagerResult``: what a task that ran in the caller's own process came to."""

from __future__ import annotations

from typing import Any

from .. import states
from ..backends import get_results
from ..backends.results import Record
from ..exceptions import TaskRevokedError, WouldBlockForever
from .handles import AsyncResult, R


class EagerResult(AsyncResult[R]):
    """The result of a task that ran in the caller's own process (``apply()``, ``TASK_ALWAYS_EAGER``).

    Nothing is read from the database: it knows what became of the task.
    """

    def __init__(self, id: str, value: Any, state: str, traceback: str | None = None, name: str | None = None) -> None:
        super().__init__(id, task_name=name)
        self._value = value
        self._state = state
        self._traceback = traceback
        #: What the ledger says of it, or would say; ``None`` for a result made by hand.
        self._ledger: Record | None = None
        self._stored = False

    @property
    def state(self) -> str:
        return self._state

    status = state

    def exists(self) -> bool:
        return True

    def ready(self) -> bool:
        return self._state in states.READY_STATES

    @property
    def result(self) -> Any:
        return self._value

    info = result

    @property
    def traceback(self) -> str | None:
        return self._traceback

    @property
    def children(self) -> list[Any] | None:
        """What it sent, if ``TASK_STORE_EAGER_RESULT`` stored it; else ``None``, as in Celery."""
        return super().children if self._stored else None

    @property
    def supports_native_join(self) -> bool:
        return False

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Note that it was revoked, in place of its result; it has run already."""
        self._state, self._value, self._traceback = states.REVOKED, TaskRevokedError("revoked"), None

    def forget(self) -> None:
        """Delete what ``TASK_STORE_EAGER_RESULT`` stored; this handle goes on knowing it."""
        if self._stored:
            get_results().forget(self.id)

    def become(self, other: EagerResult[Any]) -> None:
        """Take over the outcome of ``other``, an eager run of the same call."""
        self.__dict__.update({**vars(other), "_callbacks": self._callbacks})
        self._tell()

    def _is_known(self) -> bool:
        return self.ready()

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.id, self._value, self._state, self._traceback, self._name)

    def _outcome(self, timeout: Any, interval: Any, on_interval: Any) -> tuple[str, Any]:
        if not self.ready():
            raise WouldBlockForever(f"Task {self.id} runs when the transaction that is open here commits")
        return self._state, None if self._state == states.IGNORED else self._value

    def _record(self, strict: bool = True) -> Record | None:
        return self._ledger
