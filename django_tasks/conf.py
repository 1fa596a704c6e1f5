"""The settings: one dict, ``DJANGO_TASKS``, in Django's settings module.

Keys are Celery's names in any case. A wrong key or value is an error that says what is allowed. :class:`Settings` is
the one table of them; the reference in the documentation is made from it. Reading a setting costs an attribute look-up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, overload

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from . import addresses
from . import setting_kinds as kinds
from .celery_names import suggestion
from .retry import PUBLISH_RETRY_POLICY
from .setting_kinds import LINK_NAMES, PANELS, PRIORITIES, QUEUE_NAME

__all__ = ["LINK_NAMES", "PANELS", "PRIORITIES", "QUEUE_NAME", "Setting", "Settings", "check_settings", "settings"]

T = TypeVar("T")

#: The name of the dict in Django's settings.
NAMESPACE: Final = "DJANGO_TASKS"


class Setting(Generic[T]):
    """One setting: what it means, its default, its unit and its kind."""

    def __init__(self, kind: kinds.Kind[T], default: Any, doc: str, *, unit: str = "") -> None:
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


# The table -----------------------------------------------------------------------------------------------------------


class Settings:
    """The values of ``DJANGO_TASKS``, each with its default, read when first asked for and kept until they change.

    Raises ``ImproperlyConfigured`` with every problem, whichever attribute is read.
    """

    DATABASE = Setting(
        kinds.Kind("an alias of DATABASES", kinds.database),
        "default",
        "The alias in Django's DATABASES of the database that holds tasks and results.",
    )
    BROKER_URL = Setting(
        kinds.Kind(
            addresses.ALLOWED,
            kinds.broker_url,
            kinds.shown_url,
        ),
        "database://",
        "What carries tasks to the workers; database:// means the tables in DATABASE.",
    )
    BROKER_CONNECTION_TIMEOUT = Setting(
        kinds.seconds(0.1),
        4.0,
        "How long to wait for a broker other than the database, or for its answer.",
        unit="seconds",
    )
    TASK_DURABLE = Setting(
        kinds.BOOLEAN,
        True,
        "Whether a call is a row in the database until it is done, whatever carries it; False is for a broker other "
        "than the database, which alone knows the call then.",
    )
    TASK_DEFAULT_QUEUE = Setting(kinds.QUEUE, "default", "The queue of a task for which nothing names another.")
    TASK_DEFAULT_PRIORITY = Setting(
        kinds.integer(PRIORITIES[0], PRIORITIES[-1]),
        0,
        "The priority of a task for which nothing gives another; higher runs first.",
    )
    TASK_ROUTES = Setting(
        kinds.Kind("None, a dict, a list, a callable or the dotted path of one", kinds.routes),
        None,
        "Which tasks go to which queue and with which priority, by name, pattern or function.",
    )
    TASK_SERIALIZER = Setting(kinds.SERIALIZER, "json", "The format in which arguments are stored.")
    RESULT_SERIALIZER = Setting(kinds.SERIALIZER, "json", "The format in which results are stored.")
    ACCEPT_CONTENT = Setting(
        kinds.several(
            re.compile(r"[A-Za-z0-9][A-Za-z0-9_./+-]{0,99}"),
            "a list, not empty, of serializer names or content types",
            at_least=1,
        ),
        ("json",),
        "The formats that are read; anything else is refused before it is decoded.",
    )
    TASK_COMPRESSION = Setting(kinds.COMPRESSION, None, "How stored arguments are compressed; None means not at all.")
    RESULT_COMPRESSION = Setting(kinds.COMPRESSION, None, "How stored results are compressed; None means not at all.")
    ALLOW_UNSAFE_PICKLE = Setting(
        kinds.Kind("True or False", kinds.boolean),
        False,
        "Whether pickle may be used, if ACCEPT_CONTENT has it, too; who can write the database can then run any code.",
    )
    PAYLOAD_LIMIT = Setting(
        kinds.integer(1024),
        1_048_576,
        "The largest stored arguments or result of one task; more is refused.",
        unit="bytes",
    )
    TASK_ALWAYS_EAGER = Setting(
        kinds.BOOLEAN, False, "Whether calls run at once in the caller's process instead of being stored."
    )
    TASK_EAGER_PROPAGATES = Setting(kinds.BOOLEAN, False, "Whether an eager task's exception is raised in the caller.")
    TASK_STORE_EAGER_RESULT = Setting(kinds.BOOLEAN, False, "Whether the results of eager tasks are stored.")
    TASK_ALLOW_ERROR_CB_ON_CHORD_HEADER = Setting(
        kinds.BOOLEAN, False, "Whether what is linked to a chord for errors is linked to each task of its header, too."
    )
    TASK_IGNORE_RESULT = Setting(kinds.BOOLEAN, False, "Whether the results of successful tasks are dropped.")
    TASK_STORE_ERRORS_EVEN_IF_IGNORED = Setting(
        kinds.Kind("True: failures are always kept here", kinds.true),
        True,
        "Accepted for Celery's sake; failures are always kept, so it can only be True.",
    )
    TASK_ACKS_LATE = Setting(
        kinds.BOOLEAN,
        True,
        "Whether a task whose worker died runs again; False means that it ends as FAILURE, never run twice.",
    )
    TASK_REJECT_ON_WORKER_LOST = Setting(
        kinds.BOOLEAN,
        True,
        "Whether a task whose own process died goes back to its queue; False means that it ends as FAILURE.",
    )
    TASK_TRACK_STARTED = Setting(
        kinds.BOOLEAN, False, "Whether even the shortest task is reported as STARTED while it runs."
    )
    TASK_TIME_LIMIT = Setting(
        kinds.optional(kinds.time_limit(), "no limit"),
        None,
        "After which time a running task is ended from outside, if neither the task nor the call says.",
        unit="seconds",
    )
    TASK_SOFT_TIME_LIMIT = Setting(
        kinds.optional(kinds.time_limit(), "no limit"),
        None,
        "After which time SoftTimeLimitExceeded is raised in a task, if neither the task nor the call says.",
        unit="seconds",
    )
    TASK_LOG_LEVEL = Setting(
        kinds.optional(kinds.one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), "none are kept"),
        None,
        "From which level on log records of tasks are kept with them, if the task does not say.",
    )
    TASK_LOG_LIMIT = Setting(
        kinds.integer(1_024, 4_194_304),
        65_536,
        "The most that is kept of the log of one attempt: of more, the first and the last half.",
        unit="characters",
    )
    TASK_MAX_WORKER_LOSSES = Setting(
        kinds.integer(1), 3, "How many workers may die at a task before it ends as FAILURE.", unit="attempts"
    )
    TASK_INHERIT_PARENT_PRIORITY = Setting(
        kinds.BOOLEAN, False, "Whether a task sent by a task has the priority of its sender."
    )
    TASK_CONTEXT = Setting(
        kinds.several(
            re.compile("language|timezone|origin|user|request"),
            "a list of 'language', 'timezone', 'origin', 'user' and 'request'",
        ),
        (),
        "What each call takes along into its task: Django's active language and time zone; which process sent it; "
        "which user, and by which request of a browser.",
    )
    TASK_PUBLISH_RETRY = Setting(
        kinds.BOOLEAN, True, "Whether storing a call is tried again when the database refuses."
    )
    TASK_PUBLISH_RETRY_POLICY = Setting(
        kinds.Kind(
            "a dict with max_retries, interval_start, interval_step, interval_max, retry_errors", kinds.publish_policy
        ),
        {key: value for key, value in PUBLISH_RETRY_POLICY.items() if value is not None},
        "How often, and after which times in seconds, storing a call is tried again.",
    )
    RESULT_BACKEND = Setting(
        kinds.Kind(
            "'database', redis:// and the like (as for BROKER_URL), cache://alias, or the dotted path of a subclass of "
            "ResultStore",
            kinds.result_backend,
            kinds.shown_url,
        ),
        "database",
        "Where the values that tasks return are kept; all else about a task stays in DATABASE, and so do failures.",
    )
    RESULT_STORAGE_THRESHOLD = Setting(
        kinds.integer(0),
        65_536,
        "The longest result that stays there if STORAGES has the alias task_results; longer ones are kept in that.",
        unit="characters",
    )
    RESULT_EXPIRES = Setting(
        kinds.Kind(
            "None (for ever), seconds, a timedelta, or a dict of them by final state, 'default' for the rest",
            kinds.result_expires,
        ),
        {"SUCCESS": timedelta(days=7), "FAILURE": timedelta(days=30), "default": timedelta(days=7)},
        "How long results are kept, for all or by final state; None or 0 means for ever.",
        unit="seconds",
    )
    RESULT_UNKNOWN_RAISES = Setting(
        kinds.BOOLEAN,
        False,
        "Whether asking for the state of an id that nobody knows raises UnknownResult; else it is PENDING.",
    )
    IMPORTS = Setting(
        kinds.several(kinds.DOTTED_NAME, "a list of dotted module names"),
        (),
        "Further modules with tasks, beside the tasks.py of every installed app.",
    )
    WORKER_CONCURRENCY = Setting(
        kinds.optional(kinds.integer(1), "one for each CPU"),
        None,
        "How many tasks a worker runs at the same time.",
        unit="processes",
    )
    WORKER_POOL = Setting(
        kinds.optional(
            kinds.one_of("prefork", "threads", "asyncio", "solo"), "prefork where the system can fork, else solo"
        ),
        None,
        "How a worker runs tasks: in child processes, in threads or an event loop, or one by one in its own.",
    )
    WORKER_ASYNCIO_THREADS = Setting(
        kinds.integer(1), 16, "In how many threads a pool asyncio runs tasks that are no coroutines.", unit="threads"
    )
    WORKER_AUTOSCALE_IDLE = Setting(
        kinds.seconds(0), 30.0, "After what time with an idle child a worker with --autoscale ends one.", unit="seconds"
    )
    WORKER_PREFETCH_MULTIPLIER = Setting(
        kinds.optional(kinds.integer(1), "as many as fit by their run times"),
        None,
        "The most tasks that one process of a worker takes at a time.",
        unit="tasks",
    )
    WORKER_MAX_TASKS_PER_CHILD = Setting(
        kinds.optional(kinds.integer(1), "no limit"),
        None,
        "After how many tasks a child process is replaced.",
        unit="tasks",
    )
    WORKER_MAX_MEMORY_PER_CHILD = Setting(
        kinds.optional(kinds.integer(1), "no limit"),
        None,
        "At which resident memory a child process is replaced after its task.",
        unit="KiB",
    )
    WORKER_SHUTDOWN_TIMEOUT = Setting(
        kinds.seconds(0), 30.0, "How long a worker that is told to stop waits for its running tasks.", unit="seconds"
    )
    WORKER_HEARTBEAT_INTERVAL = Setting(
        kinds.seconds(0.1),
        5.0,
        "How often a worker renews its lease; while it runs nothing, half as often.",
        unit="seconds",
    )
    WORKER_LEASE = Setting(
        kinds.seconds(0.2),
        20.0,
        "After what silence a worker counts as dead; at least twice WORKER_HEARTBEAT_INTERVAL.",
        unit="seconds",
    )
    WORKER_RESCUE_INTERVAL = Setting(
        kinds.seconds(0.1), 10.0, "How often a worker looks for tasks of dead workers.", unit="seconds"
    )
    CONTROL_QUEUE_TTL = Setting(
        kinds.seconds(1),
        300.0,
        "For how long a command to workers waits for those that cannot obey at once.",
        unit="seconds",
    )
    BEAT_SCHEDULE = Setting(
        kinds.Kind("a dict of names and entries, each a dict with task and schedule", kinds.schedule),
        {},
        "The periodic tasks that the code declares, as in Celery; when a beat starts they become rows.",
    )
    BEAT_MAX_LOOP_INTERVAL = Setting(
        kinds.seconds(0.1),
        4.0,
        "How long a beat sleeps at most; a second later, changes of schedules have taken effect.",
        unit="seconds",
    )
    BEAT_RUNS_EXPIRE = Setting(
        kinds.optional(kinds.seconds(1), "for ever"),
        timedelta(days=7),
        "How long the runs of periodic tasks are remembered, by which their outcomes are shown.",
        unit="seconds",
    )
    SENSITIVE_NAMES = Setting(
        kinds.several(
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
        kinds.Kind("True, False, or the dotted path of a function of the request", kinds.flag_or_path),
        False,
        "Whether the admin's pages of tasks only show, and nobody can act there; a function decides for each request.",
    )
    ADMIN_TASK_FILTER = Setting(
        kinds.optional(
            kinds.matching(kinds.DOTTED_NAME, "the dotted path of a function of the request and a QuerySet"), "all rows"
        ),
        None,
        "What says which tasks and results a person sees, and can act on, in the admin: it returns a QuerySet.",
    )
    ADMIN_READ_DB = Setting(
        kinds.optional(kinds.Kind("an alias of DATABASES", kinds.database), "the database of the tasks"),
        None,
        "The alias of a replica of that database, from which the admin's pages read that only show.",
    )
    ADMIN_PANELS = Setting(
        kinds.several(kinds.DOTTED_NAME, f"a list of {', '.join(PANELS)} and dotted paths of classes of panels"),
        PANELS,
        "What the overview of the admin shows, in this order.",
    )
    ADMIN_LINKS = Setting(
        kinds.Kind(
            "a dict of labels and addresses, which begin with https://, http:// or / and may hold "
            + ", ".join(f"{{{name}}}" for name in LINK_NAMES),
            kinds.links,
        ),
        {},
        "Links from the page of a task to other systems; one for which the task has no value is left out.",
    )
    ADMIN_OBJECT_LINK = Setting(
        kinds.optional(
            kinds.matching(
                kinds.DOTTED_NAME, "the dotted path of a function of a task's name, an argument's name and its value"
            ),
            "no links",
        ),
        None,
        "What gives the address to which an argument on the page of a task leads, or None: order_id=5 to its order.",
    )
    RELEASE = Setting(
        kinds.optional(kinds.Kind("1 to 40 printable characters", kinds.release), "not told"),
        None,
        "What the release of the project is called, such as a commit: shown with workers, and where charts change to "
        "it.",
    )
    METRICS_TOKEN = Setting(
        kinds.Kind(
            "None (nobody) or a text of at least 16 characters", kinds.token, lambda value: f"a {type(value).__name__}"
        ),
        None,
        "What a Prometheus server gives as a bearer token to read the metrics; people may who see the overview.",
    )
    WORKER_REDIRECT_STDOUTS = Setting(
        kinds.BOOLEAN, False, "Whether what tasks write to standard output and standard error goes to the log."
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
