"""``self.request``: what a task may know about its own call (Celery's ``Context``)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .context import current_request
from .redaction import hidden_call


class Context:
    """The call that runs, with Celery's fields
    (https://docs.celeryq.dev/en/stable/userguide/tasks.html#task-request-info).

    Fields that a call does not set keep the defaults below; those that only AMQP had are always ``None``.
    """

    #: The id by which the caller knows the task.
    id: str | None = None
    #: The task's registered name.
    task: str | None = None
    args: Any = None
    kwargs: Any = None
    #: How often the task asked to be run again: 0 in the first attempt.
    retries: int = 0
    #: How often a worker took it: 1 in the first attempt. Ours; grows with crashes, too.
    attempt: int = 0
    #: What ``retry(max_retries=…)`` said in this attempt; counts for an automatic retry after it, too.
    max_retries: int | None = None
    #: ISO 8601, or ``None``.
    eta: str | None = None
    #: ISO 8601, or ``None``.
    expires: str | None = None
    is_eager: bool = False
    #: Was the task called as a function?
    called_directly: bool = True
    ignore_result: bool = False
    #: What the sender gave as ``headers=``.
    headers: dict[str, Any] | None = None
    #: Of a run that a schedule sent: the moment that it is for, aware, whenever it runs. Ours.
    scheduled_for: datetime | None = None
    #: The words by which the task is found: the declared ones, and those of the call. Ours.
    tags: tuple[str, ...] = ()
    #: Options of the call that this package does not know.
    properties: dict[str, Any] | None = None
    #: ``queue``, ``routing_key``, ``exchange``, ``priority`` and ``redelivered``.
    delivery_info: dict[str, Any] | None = None
    #: Node name of the worker.
    hostname: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    #: Which process sent it, as ``gen4711@web1``, if ``TASK_CONTEXT`` has ``origin``.
    origin: str | None = None
    shadow: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    timelimit: tuple[float | None, float | None] = (None, None)
    time_limit: float | None = None
    soft_time_limit: float | None = None
    group: str | None = None
    group_index: int | None = None
    chord: Any = None
    chain: Any = None
    callbacks: Any = None
    errbacks: Any = None
    children: list[Any] | None = None
    replaced_task_nesting: int = 0
    stamps: dict[str, Any] | None = None
    stamped_headers: list[str] | None = None
    utc: bool = True

    #: The declared task that runs under this request, and the request around it.
    _owner: Any = None
    _outer: Context | None = None
    #: The body has been entered; a further call of the task is a call of its own.
    _entered: bool = False
    #: What the call took along of where it was made (:mod:`django_tasks.context_hooks`).
    _carried: Mapping[str, Any] | None = None
    #: ``retry(throw=False)`` was asked for.
    _retry: Any = None
    #: The final state and its serialized result that ``update_state()`` told; counts if the task raises ``Ignore``.
    _told: tuple[str, str] | None = None
    #: Others take in what it returns.
    _feeds: bool = False
    #: What keeps its log, if that is kept (:mod:`django_tasks.journal`).
    _journal: Any = None
    #: What the worker was given; ``None`` when the task was called as a function.
    _delivery: Any = None

    def __init__(self, *mappings: Mapping[str, Any], **fields: Any) -> None:
        for mapping in mappings:
            self.__dict__.update(mapping)
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        # Reached for what is no field: as in Celery, what the sender gave as headers= can be read like one.
        headers = self.__dict__.get("headers")
        if headers and name in headers:
            return headers[name]
        raise AttributeError(f"The request has neither a field nor a header {name!r}")

    def get(self, key: str, default: Any = None) -> Any:
        """Return a field, or a header, by name."""
        return getattr(self, key, default)

    def update(self, *mappings: Mapping[str, Any], **fields: Any) -> None:
        """Set fields."""
        for mapping in mappings:
            self.__dict__.update(mapping)
        self.__dict__.update(fields)

    def clear(self) -> None:
        """Set every field back to its default."""
        self.__dict__.clear()

    def __repr__(self) -> str:
        shown = {key: value for key, value in self.__dict__.items() if not key.startswith("_")}
        args, kwargs = shown.get("args"), shown.get("kwargs")
        if isinstance(args, list | tuple) and isinstance(kwargs, Mapping):
            shown["args"], shown["kwargs"] = hidden_call(str(self.task), args, kwargs)
        return f"<Context: {shown!r}>"


def request_of(owner: Any) -> Context | None:
    """Return the innermost request of this task here, or ``None`` if it does not run."""
    request: Context | None = current_request.get()
    while request is not None and request._owner is not owner:
        request = request._outer
    return request


def iso(moment: datetime | None) -> str | None:
    """Return a moment as Celery writes it into a request."""
    return moment.isoformat() if moment is not None else None
