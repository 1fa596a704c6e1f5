"""The settings: one dict, ``DJANGO_TASKS``, in Django's settings module.

Keys are Celery's names in any case. A wrong key or value is an error that says what is allowed. :class:`Settings` is
the one table of them; the reference in the documentation is made from it. Reading a setting costs an attribute look-up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from string import Formatter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, overload

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from . import addresses, states
from .celery_names import suggestion
from .retry import PUBLISH_RETRY_POLICY, validate_publish_policy

__all__ = ["PRIORITIES", "QUEUE_NAME", "Kind", "Setting", "Settings", "check_settings", "settings"]

T = TypeVar("T")

#: The name of the dict in Django's settings.
NAMESPACE: Final = "DJANGO_TASKS"
#: What a queue may be called.
QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
#: Every priority there is; higher runs first.
PRIORITIES: Final = range(-100, 101)

_SERIALIZER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
_DOTTED_NAME: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
#: What the overview of the admin is made of.
PANELS: Final = ("problems", "cards", "charts", "queues", "failures", "workers", "slowest", "busiest", "periodic")
#: What an address in ``ADMIN_LINKS`` may hold.
LINK_NAMES: Final = ("id", "name", "queue", "root_id", "trace_id", "worker")
#: What stores are called elsewhere.
_STORES_OF_CELERY: Final = {"database://": "database", "django-db": "database", "django-cache": "cache://default"}


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What values a setting may have."""

    #: In words: ``a whole number from 1``.
    allowed: str
    #: Takes what was given and returns what the program sees, or raises ``ValueError``, with a reason where one helps.
    parse: Callable[[Any], T]
    #: How a refused value is shown; it must not give secrets away.
    shown: Callable[[Any], str] = repr


class Setting(Generic[T]):
    """One setting: what it means, its default, its unit and its kind."""

    def __init__(self, kind: Kind[T], default: Any, doc: str, *, unit: str = "") -> None:
        self.name = ""
        self.kind = kind
        self.default = default
        self.doc = doc
        self.unit = unit

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Settings, owner: type) -> T: ...
    def __get__(self, instance: Settings | None, owner: type) -> Self | T:
        if instance is None:
            return self
        # Reached only until the values lie in the instance's own dict, where Python looks first.
        return instance._load()[self.name]  # type: ignore[no-any-return]


# Kinds ---------------------------------------------------------------------------------------------------------------


def _refuse_unless(condition: object, reason: str = "") -> None:
    if not condition:
        raise ValueError(reason)


def _boolean(value: Any) -> bool:
    _refuse_unless(isinstance(value, bool))
    return bool(value)


def _true(value: Any) -> bool:
    _refuse_unless(value is True)
    return True


def _integer(lowest: int, highest: int | None = None) -> Kind[int]:
    def parse(value: Any) -> int:
        _refuse_unless(isinstance(value, int) and not isinstance(value, bool))
        _refuse_unless(value >= lowest and (highest is None or value <= highest))
        return int(value)

    return Kind(f"a whole number from {lowest}" + ("" if highest is None else f" to {highest}"), parse)


def _seconds(lowest: float) -> Kind[float]:
    def parse(value: Any) -> float:
        if isinstance(value, timedelta):
            value = value.total_seconds()
        _refuse_unless(isinstance(value, int | float) and not isinstance(value, bool))
        _refuse_unless(lowest <= value < float("inf"))
        return float(value)

    return Kind(f"a number of seconds from {lowest:g}, or a timedelta", parse)


def _time_limit() -> Kind[float]:
    def parse(value: Any) -> float:
        seconds = _seconds(0).parse(value)
        _refuse_unless(seconds)
        return seconds

    return Kind("a number of seconds above 0, or a timedelta", parse)


def _optional(kind: Kind[T], meaning: str = "") -> Kind[T | None]:
    none = f"None ({meaning})" if meaning else "None"
    return Kind(f"{none} or {kind.allowed}", lambda value: None if value is None else kind.parse(value), kind.shown)


def _matching(pattern: re.Pattern[str], allowed: str) -> Kind[str]:
    def parse(value: Any) -> str:
        _refuse_unless(isinstance(value, str) and pattern.fullmatch(value))
        return str(value)

    return Kind(allowed, parse)


def _one_of(*values: str) -> Kind[str]:
    def parse(value: Any) -> str:
        _refuse_unless(isinstance(value, str) and value in values)
        return str(value)

    return Kind(" or ".join(map(repr, values)), parse)


def _several(pattern: re.Pattern[str], allowed: str, *, at_least: int = 0) -> Kind[tuple[str, ...]]:
    def parse(value: Any) -> tuple[str, ...]:
        _refuse_unless(isinstance(value, list | tuple | set | frozenset))
        _refuse_unless(all(isinstance(item, str) and pattern.fullmatch(item) for item in value))
        _refuse_unless(len(value) >= at_least)
        return tuple(value)

    return Kind(allowed, parse)


def _database(value: Any) -> str:
    _refuse_unless(isinstance(value, str))
    known = {"default", *django_settings.DATABASES}
    _refuse_unless(value in known, f"DATABASES has {', '.join(sorted(known))}.")
    return str(value)


def _token(value: Any) -> str | None:
    _refuse_unless(value is None or (isinstance(value, str) and len(value) >= 16))
    return None if value is None else str(value)


def _broker_url(value: Any) -> str:
    _refuse_unless(isinstance(value, str))
    if not addresses.is_database(value):
        addresses.parse(value)
    return str(value)


def _result_backend(value: Any) -> str:
    _refuse_unless(isinstance(value, str))
    value = _STORES_OF_CELERY.get(value, value)
    scheme = addresses.scheme_of(value)
    if scheme == "cache":
        alias = value.partition("://")[2]
        known = ", ".join(sorted(django_settings.CACHES))
        _refuse_unless(alias in django_settings.CACHES, f"CACHES has {known}; cache:// is followed by one of them.")
    elif scheme:
        addresses.parse(value)
    else:
        _refuse_unless(value == "database" or ("." in value and _DOTTED_NAME.fullmatch(value)))
    return str(value)


def _shown_url(url: Any) -> str:
    """Return what is no secret in a URL."""
    scheme = addresses.scheme_of(url).partition("+")[0]
    if scheme:
        return f"'{scheme}://…'"
    return repr(url) if not isinstance(url, str) or not {"@", ":"} & set(url) else "'…'"


def _routes(value: Any) -> Any:
    # Their shape only; django_tasks.routing reads them, and says what is wrong inside.
    _refuse_unless(value is None or isinstance(value, Mapping | list | tuple | str) or callable(value))
    return value


def _flag_or_path(value: Any) -> bool | str:
    _refuse_unless(isinstance(value, bool) or (isinstance(value, str) and _DOTTED_NAME.fullmatch(value)))
    return value  # type: ignore[no-any-return]


def _links(value: Any) -> Mapping[str, str]:
    _refuse_unless(isinstance(value, Mapping))
    for label, address in value.items():
        _refuse_unless(isinstance(label, str) and label and isinstance(address, str))
        _refuse_unless(address.startswith(("https://", "http://", "/")), f"{label} leads to {address!r}.")
        try:
            names = [name for _, name, form, way in Formatter().parse(address) if name is not None or form or way]
        except ValueError as exc:
            raise ValueError(f"{label}: {exc}.") from exc
        unknown = [name for name in names if name not in LINK_NAMES]
        _refuse_unless(not unknown, f"{label} has {{{unknown[0]}}}." if unknown else "")
    return MappingProxyType(dict(value))


def _release(value: Any) -> str:
    _refuse_unless(isinstance(value, str) and 0 < len(value) <= 40 and value.isprintable() and value.strip() == value)
    return str(value)


def _schedule(value: Any) -> Mapping[str, Any]:
    # Its shape only; django_tasks.periodic.entries reads it, and says what is wrong inside.
    _refuse_unless(isinstance(value, Mapping))
    return MappingProxyType(dict(value))


def _publish_policy(value: Any) -> Mapping[str, Any]:
    try:
        return MappingProxyType(validate_publish_policy(value))
    except TypeError as exc:
        raise ValueError(f"{exc}.") from exc


def _result_expires(value: Any) -> Mapping[str, timedelta | None]:
    if not isinstance(value, Mapping):
        return MappingProxyType(dict.fromkeys(sorted(states.FINISHED), _lifetime(value)))
    given = {str(state).upper(): _lifetime(each) for state, each in value.items()}
    unknown = given.keys() - states.FINISHED - {"DEFAULT"}
    _refuse_unless(not unknown, f"{', '.join(sorted(unknown))} is no final state.")
    rest = {"DEFAULT": given["DEFAULT"]} if "DEFAULT" in given else _KEPT
    return MappingProxyType(
        {
            state: given[state] if state in given else rest.get(state, rest["DEFAULT"])
            for state in sorted(states.FINISHED)
        }
    )


def _lifetime(value: Any) -> timedelta | None:
    if value is None:
        return None
    if not isinstance(value, timedelta):
        _refuse_unless(isinstance(value, int | float) and not isinstance(value, bool))
        try:
            value = timedelta(seconds=value)
        except OverflowError as exc:
            raise ValueError from exc
    _refuse_unless(value >= timedelta(0))
    return value or None  # 0 means for ever, as in Celery


_KEPT: Final[Mapping[str, timedelta | None]] = {"FAILURE": timedelta(days=30), "DEFAULT": timedelta(days=7)}

BOOLEAN: Final = Kind("True or False", _boolean)
QUEUE: Final = _matching(QUEUE_NAME, "1 to 64 of the characters A-Z a-z 0-9 _ . : -")
SERIALIZER: Final = _matching(_SERIALIZER_NAME, "the name of a registered serializer, such as 'json'")
COMPRESSION: Final = _optional(_matching(_SERIALIZER_NAME, "the name of a registered compression, such as 'gzip'"))


# The table -----------------------------------------------------------------------------------------------------------


class Settings:
    """The values of ``DJANGO_TASKS``, each with its default, read when first asked for and kept until they change.

    Raises ``ImproperlyConfigured`` with every problem, whichever attribute is read.
    """

    DATABASE = Setting(
        Kind("an alias of DATABASES", _database),
        "default",
        "The alias in Django's DATABASES of the database that holds tasks and results.",
    )
    BROKER_URL = Setting(
        Kind(
            addresses.ALLOWED,
            _broker_url,
            _shown_url,
        ),
        "database://",
        "What carries tasks to the workers; database:// means the tables in DATABASE.",
    )
    BROKER_CONNECTION_TIMEOUT = Setting(
        _seconds(0.1), 4.0, "How long to wait for a broker other than the database, or for its answer.", unit="seconds"
    )
    TASK_DURABLE = Setting(
        BOOLEAN,
        True,
        "Whether a call is a row in the database until it is done, whatever carries it; False is for a broker other "
        "than the database, which alone knows the call then.",
    )
    TASK_DEFAULT_QUEUE = Setting(QUEUE, "default", "The queue of a task for which nothing names another.")
    TASK_DEFAULT_PRIORITY = Setting(
        _integer(PRIORITIES[0], PRIORITIES[-1]),
        0,
        "The priority of a task for which nothing gives another; higher runs first.",
    )
    TASK_ROUTES = Setting(
        Kind("None, a dict, a list, a callable or the dotted path of one", _routes),
        None,
        "Which tasks go to which queue and with which priority, by name, pattern or function.",
    )
    TASK_SERIALIZER = Setting(SERIALIZER, "json", "The format in which arguments are stored.")
    RESULT_SERIALIZER = Setting(SERIALIZER, "json", "The format in which results are stored.")
    ACCEPT_CONTENT = Setting(
        _several(
            re.compile(r"[A-Za-z0-9][A-Za-z0-9_./+-]{0,99}"),
            "a list, not empty, of serializer names or content types",
            at_least=1,
        ),
        ("json",),
        "The formats that are read; anything else is refused before it is decoded.",
    )
    TASK_COMPRESSION = Setting(COMPRESSION, None, "How stored arguments are compressed; None means not at all.")
    RESULT_COMPRESSION = Setting(COMPRESSION, None, "How stored results are compressed; None means not at all.")
    ALLOW_UNSAFE_PICKLE = Setting(
        Kind("True or False", _boolean),
        False,
        "Whether pickle may be used, if ACCEPT_CONTENT has it, too; who can write the database can then run any code.",
    )
    PAYLOAD_LIMIT = Setting(
        _integer(1024), 1_048_576, "The largest stored arguments or result of one task; more is refused.", unit="bytes"
    )
    TASK_ALWAYS_EAGER = Setting(
        BOOLEAN, False, "Whether calls run at once in the caller's process instead of being stored."
    )
    TASK_EAGER_PROPAGATES = Setting(BOOLEAN, False, "Whether an eager task's exception is raised in the caller.")
    TASK_STORE_EAGER_RESULT = Setting(BOOLEAN, False, "Whether the results of eager tasks are stored.")
    TASK_ALLOW_ERROR_CB_ON_CHORD_HEADER = Setting(
        BOOLEAN, False, "Whether what is linked to a chord for errors is linked to each task of its header, too."
    )
    TASK_IGNORE_RESULT = Setting(BOOLEAN, False, "Whether the results of successful tasks are dropped.")
    TASK_STORE_ERRORS_EVEN_IF_IGNORED = Setting(
        Kind("True: failures are always kept here", _true),
        True,
        "Accepted for Celery's sake; failures are always kept, so it can only be True.",
    )
    TASK_ACKS_LATE = Setting(
        BOOLEAN,
        True,
        "Whether a task whose worker died runs again; False means that it ends as FAILURE, never run twice.",
    )
    TASK_REJECT_ON_WORKER_LOST = Setting(
        BOOLEAN,
        True,
        "Whether a task whose own process died goes back to its queue; False means that it ends as FAILURE.",
    )
    TASK_TRACK_STARTED = Setting(BOOLEAN, False, "Whether even the shortest task is reported as STARTED while it runs.")
    TASK_TIME_LIMIT = Setting(
        _optional(_time_limit(), "no limit"),
        None,
        "After which time a running task is ended from outside, if neither the task nor the call says.",
        unit="seconds",
    )
    TASK_SOFT_TIME_LIMIT = Setting(
        _optional(_time_limit(), "no limit"),
        None,
        "After which time SoftTimeLimitExceeded is raised in a task, if neither the task nor the call says.",
        unit="seconds",
    )
    TASK_LOG_LEVEL = Setting(
        _optional(_one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), "none are kept"),
        None,
        "From which level on log records of tasks are kept with them, if the task does not say.",
    )
    TASK_LOG_LIMIT = Setting(
        _integer(1_024, 4_194_304),
        65_536,
        "The most that is kept of the log of one attempt: of more, the first and the last half.",
        unit="characters",
    )
    TASK_MAX_WORKER_LOSSES = Setting(
        _integer(1), 3, "How many workers may die at a task before it ends as FAILURE.", unit="attempts"
    )
    TASK_INHERIT_PARENT_PRIORITY = Setting(
        BOOLEAN, False, "Whether a task sent by a task has the priority of its sender."
    )
    TASK_CONTEXT = Setting(
        _several(re.compile("language|timezone"), "a list of 'language' and 'timezone'"),
        (),
        "What of Django's active state each call takes along into its task.",
    )
    TASK_PUBLISH_RETRY = Setting(BOOLEAN, True, "Whether storing a call is tried again when the database refuses.")
    TASK_PUBLISH_RETRY_POLICY = Setting(
        Kind("a dict with max_retries, interval_start, interval_step, interval_max, retry_errors", _publish_policy),
        {key: value for key, value in PUBLISH_RETRY_POLICY.items() if value is not None},
        "How often, and after which times in seconds, storing a call is tried again.",
    )
    RESULT_BACKEND = Setting(
        Kind(
            "'database', redis:// and the like (as for BROKER_URL), cache://alias, or the dotted path of a subclass of "
            "ResultStore",
            _result_backend,
            _shown_url,
        ),
        "database",
        "Where the values that tasks return are kept; all else about a task stays in DATABASE, and so do failures.",
    )
    RESULT_STORAGE_THRESHOLD = Setting(
        _integer(0),
        65_536,
        "The longest result that stays there if STORAGES has the alias task_results; longer ones are kept in that.",
        unit="characters",
    )
    RESULT_EXPIRES = Setting(
        Kind(
            "None (for ever), seconds, a timedelta, or a dict of them by final state, 'default' for the rest",
            _result_expires,
        ),
        {"SUCCESS": timedelta(days=7), "FAILURE": timedelta(days=30), "default": timedelta(days=7)},
        "How long results are kept, for all or by final state; None or 0 means for ever.",
        unit="seconds",
    )
    RESULT_UNKNOWN_RAISES = Setting(
        BOOLEAN,
        False,
        "Whether asking for the state of an id that nobody knows raises UnknownResult; else it is PENDING.",
    )
    IMPORTS = Setting(
        _several(_DOTTED_NAME, "a list of dotted module names"),
        (),
        "Further modules with tasks, beside the tasks.py of every installed app.",
    )
    WORKER_CONCURRENCY = Setting(
        _optional(_integer(1), "one for each CPU"),
        None,
        "How many tasks a worker runs at the same time.",
        unit="processes",
    )
    WORKER_POOL = Setting(
        _optional(_one_of("prefork", "threads", "asyncio", "solo"), "prefork where the system can fork, else solo"),
        None,
        "How a worker runs tasks: in child processes, in threads or an event loop, or one by one in its own.",
    )
    WORKER_ASYNCIO_THREADS = Setting(
        _integer(1), 16, "In how many threads a pool asyncio runs tasks that are no coroutines.", unit="threads"
    )
    WORKER_AUTOSCALE_IDLE = Setting(
        _seconds(0), 30.0, "After what time with an idle child a worker with --autoscale ends one.", unit="seconds"
    )
    WORKER_PREFETCH_MULTIPLIER = Setting(
        _optional(_integer(1), "as many as fit by their run times"),
        None,
        "The most tasks that one process of a worker takes at a time.",
        unit="tasks",
    )
    WORKER_MAX_TASKS_PER_CHILD = Setting(
        _optional(_integer(1), "no limit"), None, "After how many tasks a child process is replaced.", unit="tasks"
    )
    WORKER_MAX_MEMORY_PER_CHILD = Setting(
        _optional(_integer(1), "no limit"),
        None,
        "At which resident memory a child process is replaced after its task.",
        unit="KiB",
    )
    WORKER_SHUTDOWN_TIMEOUT = Setting(
        _seconds(0), 30.0, "How long a worker that is told to stop waits for its running tasks.", unit="seconds"
    )
    WORKER_HEARTBEAT_INTERVAL = Setting(_seconds(0.1), 5.0, "How often a worker renews its lease.", unit="seconds")
    WORKER_LEASE = Setting(
        _seconds(0.2),
        20.0,
        "After what silence a worker counts as dead; at least twice WORKER_HEARTBEAT_INTERVAL.",
        unit="seconds",
    )
    WORKER_RESCUE_INTERVAL = Setting(
        _seconds(0.1), 10.0, "How often a worker looks for tasks of dead workers.", unit="seconds"
    )
    CONTROL_QUEUE_TTL = Setting(
        _seconds(1),
        300.0,
        "For how long a command to workers waits for those that cannot obey at once.",
        unit="seconds",
    )
    BEAT_SCHEDULE = Setting(
        Kind("a dict of names and entries, each a dict with task and schedule", _schedule),
        {},
        "The periodic tasks that the code declares, as in Celery; when a beat starts they become rows.",
    )
    BEAT_MAX_LOOP_INTERVAL = Setting(
        _seconds(0.1),
        4.0,
        "How long a beat sleeps at most; a second later, changes of schedules have taken effect.",
        unit="seconds",
    )
    BEAT_RUNS_EXPIRE = Setting(
        _optional(_seconds(1), "for ever"),
        timedelta(days=7),
        "How long the runs of periodic tasks are remembered, by which their outcomes are shown.",
        unit="seconds",
    )
    SENSITIVE_NAMES = Setting(
        _several(
            re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])"),
            "a list, perhaps empty, of words of 2 to 64 of the characters A-Z a-z 0-9 _ -",
        ),
        (
            *("password", "passwd", "passphrase", "secret", "token", "api_key", "authorization", "credential"),
            *("private_key", "cookie"),
        ),
        "Words that make a name secret wherever they stand in it: values of arguments and keys with such names are "
        "shown to nobody. An underscore stands for itself, a hyphen or nothing.",
    )
    ADMIN_READ_ONLY = Setting(
        Kind("True, False, or the dotted path of a function of the request", _flag_or_path),
        False,
        "Whether the admin's pages of tasks only show, and nobody can act there; a function decides for each request.",
    )
    ADMIN_TASK_FILTER = Setting(
        _optional(_matching(_DOTTED_NAME, "the dotted path of a function of the request and a QuerySet"), "all rows"),
        None,
        "What says which tasks and results a person sees, and can act on, in the admin: it returns a QuerySet.",
    )
    ADMIN_PANELS = Setting(
        _several(_DOTTED_NAME, f"a list of {', '.join(PANELS)} and dotted paths of classes of panels"),
        PANELS,
        "What the overview of the admin shows, in this order.",
    )
    ADMIN_LINKS = Setting(
        Kind(
            "a dict of labels and addresses, which begin with https://, http:// or / and may hold "
            + ", ".join(f"{{{name}}}" for name in LINK_NAMES),
            _links,
        ),
        {},
        "Links from the page of a task to other systems; one for which the task has no value is left out.",
    )
    ADMIN_OBJECT_LINK = Setting(
        _optional(
            _matching(_DOTTED_NAME, "the dotted path of a function of a task's name, an argument's name and its value"),
            "no links",
        ),
        None,
        "What gives the address to which an argument on the page of a task leads, or None: order_id=5 to its order.",
    )
    RELEASE = Setting(
        _optional(Kind("1 to 40 printable characters", _release), "not told"),
        None,
        "What the release of the project is called, such as a commit: shown with workers, and where charts change to "
        "it.",
    )
    METRICS_TOKEN = Setting(
        Kind("None (nobody) or a text of at least 16 characters", _token, lambda value: f"a {type(value).__name__}"),
        None,
        "What a Prometheus server gives as a bearer token to read the metrics; people may who see the overview.",
    )
    WORKER_REDIRECT_STDOUTS = Setting(
        BOOLEAN, False, "Whether what tasks write to standard output and standard error goes to the log."
    )

    @classmethod
    def table(cls) -> dict[str, Setting[Any]]:
        """Return every setting by its name, in the order of the documentation."""
        return {name: each for name, each in vars(cls).items() if isinstance(each, Setting)}

    def reload(self) -> None:
        """Forget the values; the next look reads Django's settings again."""
        self.__dict__.clear()

    def _load(self) -> dict[str, Any]:
        values, problems = _read()
        if problems:
            raise ImproperlyConfigured("\n".join(problems))
        self.__dict__.update(values)
        return values

    if not TYPE_CHECKING:  # so that a type checker still finds a misspelled name

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"{NAMESPACE} has no setting {name!r}.{suggestion(name, Settings.table())}")


def check_settings() -> list[str]:
    """Return everything that is wrong with ``DJANGO_TASKS``, one sentence or two each; ``[]`` when all is well."""
    return _read()[1]


def _read() -> tuple[dict[str, Any], list[str]]:
    given = getattr(django_settings, NAMESPACE, None)
    table = Settings.table()
    values: dict[str, Any] = {}
    problems: list[str] = []
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        problems.append(f"{NAMESPACE} is {given!r}; allowed: a dict.")
        given = {}
    spelled: dict[str, Any] = {}
    for key, value in given.items():
        name = str(key).upper()
        if name not in table:
            problems.append(f"{NAMESPACE} has no setting {key!r}.{suggestion(name, Settings.table())}")
        elif name in spelled:
            problems.append(f"{NAMESPACE} has {name} twice, in different cases.")
        spelled[name] = value
    for name, setting in table.items():
        try:
            values[name] = setting.kind.parse(spelled.get(name, setting.default))
        except ValueError as exc:
            reason = f" {exc}" if str(exc) else ""
            shown = _cut(setting.kind.shown(spelled[name]))
            problems.append(f"{NAMESPACE}[{name!r}] is {shown}; allowed: {setting.kind.allowed}.{reason}")
    lease, interval = values.get("WORKER_LEASE", 0), values.get("WORKER_HEARTBEAT_INTERVAL", 0)
    if lease and interval and lease < 2 * interval:
        problems.append(
            f"{NAMESPACE}['WORKER_LEASE'] is {lease:g}; allowed: at least twice WORKER_HEARTBEAT_INTERVAL, "
            f"here {2 * interval:g}: one late renewal must not cost a worker its tasks."
        )
    hard, soft = values.get("TASK_TIME_LIMIT"), values.get("TASK_SOFT_TIME_LIMIT")
    if hard and soft and soft > hard:
        problems.append(
            f"{NAMESPACE}['TASK_SOFT_TIME_LIMIT'] is {soft:g}; allowed: at most TASK_TIME_LIMIT, here {hard:g}."
        )
    return values, problems


def _cut(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:99]}…"


#: The settings of this process.
settings = Settings()


def _forget(*, setting: str, **named: Any) -> None:
    if setting in (NAMESPACE, "DATABASES"):
        settings.reload()


setting_changed.connect(_forget, weak=False, dispatch_uid="django_tasks.conf")
