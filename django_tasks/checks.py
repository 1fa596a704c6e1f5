"""System checks: what is wrong with the set-up, with the setting and the cure. Ids are never reused.

They speak English, as those of Django; the page of health tells their sentences in the reader's language.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core import checks
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections
from django.utils.translation import gettext_noop

from . import access, addresses, backends, clash, extensions, task_names
from .backends import stores
from .conf import check_settings, settings
from .context_hooks import OF_REQUEST
from .exceptions import OperationalError
from .middleware import REMEMBER_REQUEST
from .periodic import entries
from .routing import check_routes
from .sentences import Sentence
from .serialization import check_formats

TAG = "django_tasks"


@checks.register(TAG, checks.Tags.compatibility)
def check_clash(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E001, W001: PyPI's ``django-tasks`` installs the same import package."""
    found: list[checks.CheckMessage] = []
    for problem in clash.find_clash():
        kind = checks.Error if problem.overwritten else checks.Warning
        found.append(
            kind(problem.message, hint=problem.hint, id=f"django_tasks.{'E' if problem.overwritten else 'W'}001")
        )
    return found


@checks.register(TAG)
def check_configuration(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E002: a setting is unknown or has a bad value. E003: the database cannot be a broker. E007: ADMIN_READ_DB
    is no replica of it. W002: pickle is accepted."""
    problems = check_settings() or [*check_formats(), *check_routes(), *access.check(), *extensions.check()]
    if problems:
        return [checks.Error(problem, id="django_tasks.E002") for problem in problems]
    found: list[checks.CheckMessage] = []
    alias = settings.DATABASE
    if alias not in connections:
        return [
            checks.Error(
                Sentence(
                    gettext_noop("DJANGO_TASKS['DATABASE'] names %(alias)s, which is not in DATABASES (%(known)s)."),
                    alias=repr(alias),
                    known=", ".join(connections),
                ),
                id="django_tasks.E003",
            )
        ]
    vendor = connections[alias].vendor
    if vendor not in ("sqlite", "postgresql", "mysql"):
        found.append(
            checks.Error(
                Sentence(
                    gettext_noop("DJANGO_TASKS['DATABASE'] names %(alias)s, a %(vendor)s database."),
                    alias=repr(alias),
                    vendor=vendor,
                ),
                hint=Sentence(
                    gettext_noop(
                        "Tasks can be kept in PostgreSQL, SQLite, MariaDB or MySQL; give them an alias of their own."
                    )
                ),
                id="django_tasks.E003",
            )
        )
    replica = settings.ADMIN_READ_DB
    if replica is not None and connections[replica].vendor != vendor:
        found.append(
            checks.Error(
                Sentence(
                    gettext_noop(
                        "DJANGO_TASKS['ADMIN_READ_DB'] names %(alias)s, a %(other)s database; tasks are kept in "
                        "%(vendor)s."
                    ),
                    alias=repr(replica),
                    other=connections[replica].vendor,
                    vendor=vendor,
                ),
                hint=Sentence(gettext_noop("Name a replica of the database that holds the tasks, or None.")),
                id="django_tasks.E007",
            )
        )
    if settings.ALLOW_UNSAFE_PICKLE and "pickle" in settings.ACCEPT_CONTENT:
        found.append(
            checks.Warning(
                Sentence(
                    gettext_noop(
                        "DJANGO_TASKS accepts pickle: whoever can write to the database can run code in the worker."
                    )
                ),
                hint=Sentence(gettext_noop("Use JSON; remove 'pickle' from ACCEPT_CONTENT and ALLOW_UNSAFE_PICKLE.")),
                id="django_tasks.W002",
            )
        )
    return found


@checks.register(TAG)
def check_results(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E005: RESULT_BACKEND cannot be used. W006: its cache keeps nothing for others."""
    if check_settings():
        return []  # check_configuration tells
    found: list[checks.CheckMessage] = [checks.Error(one, id="django_tasks.E005") for one in stores.problems()]
    scheme, _, alias = settings.RESULT_BACKEND.partition("://")
    if scheme == "cache":
        cache = caches[alias]
        for kind, text in (
            (
                DummyCache,
                gettext_noop(
                    "DJANGO_TASKS['RESULT_BACKEND'] is %(url)s, a DummyCache, which keeps nothing: nobody will find a "
                    "result there."
                ),
            ),
            (
                LocMemCache,
                gettext_noop(
                    "DJANGO_TASKS['RESULT_BACKEND'] is %(url)s, a LocMemCache, which is of each process's own: nobody "
                    "will find a result there."
                ),
            ),
        ):
            if isinstance(cache, kind):
                found.append(
                    checks.Warning(
                        Sentence(text, url=repr(settings.RESULT_BACKEND)),
                        hint=Sentence(gettext_noop("Name a cache on a server, or leave results in the database.")),
                        id="django_tasks.W006",
                    )
                )
    return found


@checks.register(TAG)
def check_context(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """W008: TASK_CONTEXT asks for what nobody remembers."""
    wanted = [] if check_settings() else [name for name in OF_REQUEST if name in settings.TASK_CONTEXT]
    if not wanted or REMEMBER_REQUEST in django_settings.MIDDLEWARE:
        return []
    return [
        checks.Warning(
            Sentence(
                gettext_noop(
                    "DJANGO_TASKS['TASK_CONTEXT'] has %(names)s, but no call will take that along: MIDDLEWARE lacks "
                    "what remembers the request."
                ),
                names=", ".join(map(repr, wanted)),
            ),
            hint=Sentence(gettext_noop("Add %(middleware)s to MIDDLEWARE."), middleware=repr(REMEMBER_REQUEST)),
            id="django_tasks.W008",
        )
    ]


@checks.register(TAG, deploy=True)
def check_broker(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E006: the server that BROKER_URL names would lose tasks, or is too old. W007: it is not fit to be full. One that
    cannot be reached is passed over."""
    if check_settings() or addresses.is_database(settings.BROKER_URL):
        return []
    try:
        return [
            checks.Error(one.problem, hint=one.cure, id="django_tasks.E006")
            if one.fatal
            else checks.Warning(one.problem, hint=one.cure, id="django_tasks.W007")
            for one in backends.unfit(settings.BROKER_URL)
        ]
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="django_tasks.E006")]
    except OperationalError:
        return []


@checks.register(TAG)
def check_periodic(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E004: a declaration of a periodic task cannot be kept."""
    if check_settings():
        return []  # check_configuration tells
    return [checks.Error(problem, id="django_tasks.E004") for problem in entries.problems(_known_to_workers)]


def _known_to_workers() -> Iterable[str]:
    if settings.DATABASE not in connections:
        return ()  # check_configuration tells
    try:
        return task_names.of_workers().workers
    except (Error, ImproperlyConfigured):  # it is away, has no tables yet, or is none
        return ()


@checks.register(TAG, deploy=True)
def check_deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """W003: tasks run in the caller. W004: results are kept for ever. W005: SQLite will be found locked."""
    if check_settings() or settings.DATABASE not in connections:
        return []  # check_configuration tells
    found: list[checks.CheckMessage] = []
    if settings.TASK_ALWAYS_EAGER and not django_settings.DEBUG:
        found.append(
            checks.Warning(
                Sentence(
                    gettext_noop(
                        "DJANGO_TASKS['TASK_ALWAYS_EAGER'] is True and DEBUG is False: every task runs while its "
                        "caller waits."
                    )
                ),
                hint=Sentence(gettext_noop("Set it in the settings for tests only.")),
                id="django_tasks.W003",
            )
        )
    kept = [state for state, lifetime in settings.RESULT_EXPIRES.items() if lifetime is None]
    if kept:
        found.append(
            checks.Warning(
                Sentence(
                    gettext_noop(
                        "DJANGO_TASKS['RESULT_EXPIRES'] keeps results for ever (%(states)s): their table only grows."
                    ),
                    states=", ".join(kept),
                ),
                hint=Sentence(
                    gettext_noop("Give a lifetime, e.g. {'SUCCESS': timedelta(days=7), 'FAILURE': timedelta(days=30)}.")
                ),
                id="django_tasks.W004",
            )
        )
    return found + _check_sqlite()


def _check_sqlite() -> list[checks.CheckMessage]:
    connection = connections[settings.DATABASE]
    if connection.vendor != "sqlite":
        return []
    options = connection.settings_dict.get("OPTIONS") or {}
    mode = str(options.get("transaction_mode") or "DEFERRED").upper()
    if mode != "DEFERRED" and options.get("timeout", 5) >= 5:
        return []
    return [
        checks.Warning(
            Sentence(
                gettext_noop(
                    "DATABASES[%(database)s] is SQLite with transaction_mode %(mode)s and a timeout of %(seconds)s s: "
                    '"database is locked" is raised when a worker and a request write at once.'
                ),
                database=repr(settings.DATABASE),
                mode=mode,
                seconds=options.get("timeout", 5),
            ),
            hint=Sentence(gettext_noop("Set its OPTIONS to {'transaction_mode': 'IMMEDIATE', 'timeout': 20}.")),
            id="django_tasks.W005",
        )
    ]
