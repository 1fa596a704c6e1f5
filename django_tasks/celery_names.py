"""What to say of a setting that is not ours: Celery's other names, and misspelled ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["suggestion"]

#: Names from before Celery 4, without ``CELERY_``.
_NEW_NAMES: Final[Mapping[str, str]] = {
    "ACKS_LATE": "TASK_ACKS_LATE",
    "ALWAYS_EAGER": "TASK_ALWAYS_EAGER",
    "CELERYD_CONCURRENCY": "WORKER_CONCURRENCY",
    "CELERYD_MAX_MEMORY_PER_CHILD": "WORKER_MAX_MEMORY_PER_CHILD",
    "CELERYD_MAX_TASKS_PER_CHILD": "WORKER_MAX_TASKS_PER_CHILD",
    "CELERYD_POOL": "WORKER_POOL",
    "CELERYD_PREFETCH_MULTIPLIER": "WORKER_PREFETCH_MULTIPLIER",
    "CONCURRENCY": "WORKER_CONCURRENCY",
    "DEFAULT_PRIORITY": "TASK_DEFAULT_PRIORITY",
    "DEFAULT_QUEUE": "TASK_DEFAULT_QUEUE",
    "EAGER_PROPAGATES": "TASK_EAGER_PROPAGATES",
    "EAGER_PROPAGATES_EXCEPTIONS": "TASK_EAGER_PROPAGATES",
    "IGNORE_RESULT": "TASK_IGNORE_RESULT",
    "INCLUDE": "IMPORTS",
    "INHERIT_PARENT_PRIORITY": "TASK_INHERIT_PARENT_PRIORITY",
    "MESSAGE_COMPRESSION": "TASK_COMPRESSION",
    "REDIRECT_STDOUTS": "WORKER_REDIRECT_STDOUTS",
    "REJECT_ON_WORKER_LOST": "TASK_REJECT_ON_WORKER_LOST",
    "ROUTES": "TASK_ROUTES",
    "STORE_EAGER_RESULT": "TASK_STORE_EAGER_RESULT",
    "STORE_ERRORS_EVEN_IF_IGNORED": "TASK_STORE_ERRORS_EVEN_IF_IGNORED",
    "TASK_RESULT_EXPIRES": "RESULT_EXPIRES",
    "TRACK_STARTED": "TASK_TRACK_STARTED",
    "WORKER_SOFT_SHUTDOWN_TIMEOUT": "WORKER_SHUTDOWN_TIMEOUT",
}
_NO_BROKER: Final = "Tasks are carried by the database, which has no such option; leave it out."
_NO_STORE: Final = (
    "Results are kept in the database named by DATABASE, their values where RESULT_BACKEND says; leave it out."
)
_NO_STORE_OPTIONS: Final = "What RESULT_BACKEND needs to know stands in its URL; leave it out."
_NO_EXCHANGE: Final = "There are queues here, but no exchanges; leave it out."
_NO_DECLARATION: Final = "Queues need no declaration; leave it out and name them in TASK_ROUTES and runworker --queues."
_NO_EVENTS: Final = "Every task is recorded without events; leave it out."
_DJANGO_TIME: Final = "Django's TIME_ZONE and USE_TZ count; leave it out."
#: Why a name of Celery's is not here, and what to do.
_HINTS: Final[Mapping[str, str]] = {
    "BEAT_CRON_STARTING_DEADLINE": "Each periodic task has grace_seconds; leave it out.",
    "ENABLE_UTC": _DJANGO_TIME,
    "QUEUES": _NO_DECLARATION,
    "RESULT_ACCEPT_CONTENT": "ACCEPT_CONTENT counts for results, too; leave it out.",
    "RESULT_EXCHANGE": _NO_EXCHANGE,
    "RESULT_EXCHANGE_TYPE": _NO_EXCHANGE,
    "RESULT_EXTENDED": "Results always tell name, arguments, worker and times; leave it out.",
    "RESULT_FAILURE_EXPIRES": "Write RESULT_EXPIRES = {'FAILURE': …}.",
    "SEND_EVENTS": _NO_EVENTS,
    "SEND_TASK_SENT_EVENT": _NO_EVENTS,
    "TASK_DEFAULT_DELIVERY_MODE": _NO_BROKER,
    "TASK_DEFAULT_EXCHANGE": _NO_EXCHANGE,
    "TASK_DEFAULT_EXCHANGE_TYPE": _NO_EXCHANGE,
    "TASK_DEFAULT_QUEUE_TYPE": _NO_BROKER,
    "TASK_DEFAULT_ROUTING_KEY": _NO_EXCHANGE,
    "TASK_PROTOCOL": _NO_BROKER,
    "TASK_QUEUES": _NO_DECLARATION,
    "TASK_QUEUE_MAX_PRIORITY": "Priorities are -100 to 100 in every queue; leave it out.",
    "TASK_SEND_SENT_EVENT": _NO_EVENTS,
    "TIMEZONE": _DJANGO_TIME,
    "WORKER_SEND_TASK_EVENTS": _NO_EVENTS,
    "WORKER_STATE_DB": "What was revoked is remembered in the database; leave it out.",
}
#: The same for whole families of names; asked last.
_PREFIX_HINTS: Final[Mapping[str, str]] = {
    "BROKER_": _NO_BROKER,
    "TASK_CREATE_MISSING_QUEUE": _NO_DECLARATION,
    "CREATE_MISSING_QUEUE": _NO_DECLARATION,
    "RESULT_BACKEND_": _NO_STORE_OPTIONS,
    **dict.fromkeys(
        (
            *("ARANGODB_", "AZUREBLOCKBLOB_", "CACHE_BACKEND", "CASSANDRA_", "COSMOSDBSQL_", "COUCHBASE_", "DATABASE_"),
            *("DYNAMODB_", "ELASTICSEARCH_", "GCS_", "MONGODB_", "REDIS_", "RESULT_DB", "RESULT_ENGINE_", "S3_"),
        ),
        _NO_STORE,
    ),
    "EVENT_": _NO_EVENTS,
    "CONTROL_": "Remote control goes through the database; leave it out.",
    "BEAT_": "Schedules are rows of the database, and any number of beats may run; leave it out.",
    "CELERYBEAT_": "Schedules are rows of the database, and any number of beats may run; leave it out.",
    "SECURITY_": "Signed messages are not available in this version.",
}
#: Names of Celery 5 that may come.
_NOT_HERE: Final = frozenset(
    (
        "RESULT_CACHE_MAX",
        "RESULT_CHORD_EXPIRES",
        "RESULT_CHORD_JOIN_TIMEOUT",
        "RESULT_CHORD_RETRY_INTERVAL",
        "RESULT_PERSISTENT",
        "TASK_ACKS_ON_FAILURE",
        "TASK_ACKS_ON_FAILURE_OR_TIMEOUT",
        "TASK_ACKS_ON_TIMEOUT",
        "TASK_ANNOTATIONS",
        "TASK_DEFAULT_RATE_LIMIT",
        "TASK_REMOTE_TRACEBACKS",
        "TASK_REPR_MAXLEVELS",
        "TASK_RETRY_ON_WORKER_LOST",
        "WORKER_AGENT",
        "WORKER_AUTOSCALER",
        "WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS",
        "WORKER_CONSUMER",
        "WORKER_DEDUPLICATE_SUCCESSFUL_TASKS",
        "WORKER_DETECT_QUORUM_QUEUES",
        "WORKER_DIRECT",
        "WORKER_DISABLE_PREFETCH",
        "WORKER_DISABLE_RATE_LIMITS",
        "WORKER_ENABLE_PREFETCH_COUNT_REDUCTION",
        "WORKER_ENABLE_REMOTE_CONTROL",
        "WORKER_ENABLE_SOFT_SHUTDOWN_ON_IDLE",
        "WORKER_ETA_TASK_LIMIT",
        "WORKER_HIJACK_ROOT_LOGGER",
        "WORKER_LOG_COLOR",
        "WORKER_LOG_DATEFMT",
        "WORKER_LOG_FORMAT",
        "WORKER_LOST_WAIT",
        "WORKER_POOL_PUTLOCKS",
        "WORKER_POOL_RESTARTS",
        "WORKER_POOL_START_METHOD",
        "WORKER_PROC_ALIVE_TIMEOUT",
        "WORKER_REDIRECT_STDOUTS_LEVEL",
        "WORKER_TASK_LOG_DATEFMT",
        "WORKER_TASK_LOG_FORMAT",
        "WORKER_TIMER",
        "WORKER_TIMER_PRECISION",
    )
)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return what to write instead of ``name``, a sentence after a space; ``""`` when nothing comes to mind."""
    upper = name.upper()
    bare = upper.removeprefix("CELERY_")
    known = list(known)
    if bare != upper and bare in known:
        return f" Write {bare!r}, without 'CELERY_'."
    if bare in _NEW_NAMES:
        return f" Its name is {_NEW_NAMES[bare]!r} now."
    if bare in _HINTS:
        return f" {_HINTS[bare]}"
    if bare in _NOT_HERE:
        return " Celery has it; it is not available in this version."
    close = difflib.get_close_matches(bare, known, n=1)
    if close and difflib.SequenceMatcher(None, bare, close[0]).ratio() > 0.85:
        return f" Did you mean {close[0]!r}?"
    for prefix, hint in _PREFIX_HINTS.items():
        if bare.startswith(prefix):
            return f" {hint}"
    return f" Did you mean {close[0]!r}?" if close else ""
