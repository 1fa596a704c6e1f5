"""Where values go to and come from: small ones to ``RESULT_BACKEND``, large ones to the storage ``task_results``.

The ledger's line then holds a reference, and its ``result_encoding`` says which of the two it is for. The key of a
value names the attempt, so one that lost its lease never overwrites what the right one told.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from typing import Final

from django.conf import settings as django_settings
from django.utils.module_loading import import_string

from ... import states
from ...conf import settings
from ...exceptions import ImproperlyConfigured, OperationalError, UnknownResult
from ..message import Outcome
from .base import ResultStore
from .cache import CacheStore
from .files import ALIAS, FileStore

logger = logging.getLogger(__name__)

#: Begins the encoding of a value that lies in RESULT_BACKEND, or in a file. No name of a serializer has a colon.
ELSEWHERE: Final = "store:"
IN_FILE: Final = "file:"

_lock = threading.Lock()
_stores: dict[str, ResultStore] = {}


def keep(outcomes: Iterable[Outcome]) -> None:
    """Take the values of successes to where they are to lie; what cannot be taken there stays."""
    threshold = settings.RESULT_STORAGE_THRESHOLD if ALIAS in django_settings.STORAGES else None
    if threshold is None and settings.RESULT_BACKEND == "database":
        return
    small: list[Outcome] = []
    large: list[Outcome] = []
    for one in outcomes:
        if one.result is not None and one.keep and one.state == states.SUCCESS and not _kind(one.result_encoding):
            is_large = threshold is not None and len(one.result) > threshold
            (large if is_large else small).append(one)
    if large:
        _take(large, IN_FILE)
    if small and settings.RESULT_BACKEND != "database":
        _take(small, ELSEWHERE)


def _take(outcomes: list[Outcome], kind: str) -> None:
    lifetime = settings.RESULT_EXPIRES[states.SUCCESS]
    values = {f"{one.id}.{one.attempt}": one.result or "" for one in outcomes}
    try:
        references = _store(kind).save(values, None if lifetime is None else lifetime.total_seconds())
    except ImproperlyConfigured:
        raise
    except Exception as error:
        logger.warning("%d results stay in the database: %s cannot keep them: %s", len(outcomes), _name(kind), error)
        return
    for one in outcomes:
        reference = references.get(f"{one.id}.{one.attempt}")
        if reference is not None:
            one.result, one.result_encoding = reference, kind + one.result_encoding


def fetch(text: str, encoding: str) -> tuple[str, str]:
    """Return a stored value as text, and its encoding, wherever it lies.

    Raises ``UnknownResult`` if it is not there any more, ``OperationalError`` if the store cannot be reached.
    """
    kind = _kind(encoding)
    if not kind:
        return text, encoding
    try:
        found = _store(kind).load(text)
    except (ImproperlyConfigured, OperationalError, UnknownResult):
        raise
    except Exception as error:
        raise OperationalError(f"{_name(kind)} cannot give the result {text}: {error}") from error
    if found is None:
        raise UnknownResult(f"The task succeeded, but {_name(kind)} has not kept its result {text}")
    return found, encoding.removeprefix(kind)


def is_elsewhere(encoding: str) -> bool:
    """Does this encoding say that the value does not lie in the ledger?"""
    return bool(_kind(encoding))


def drop(stored: Iterable[tuple[str | None, str]]) -> None:
    """Forget values: texts with their encodings, as the ledger had them; those that lie in the ledger are left out."""
    by_kind: dict[str, list[str]] = {}
    for text, encoding in stored:
        if text is not None and (kind := _kind(encoding)):
            by_kind.setdefault(kind, []).append(text)
    for kind, references in by_kind.items():
        try:
            _store(kind).delete(references)
        except Exception as error:
            logger.warning("%s did not delete %d results: %s", _name(kind), len(references), error)


def problems() -> list[str]:
    """Return what is wrong with the stores that the settings name."""
    try:
        if settings.RESULT_BACKEND != "database":
            _store(ELSEWHERE)
        if ALIAS in django_settings.STORAGES:
            _store(IN_FILE)
    except ImproperlyConfigured as error:
        return [str(error)]
    return []


def close_all() -> None:
    """Close this process's stores; the next use makes new ones."""
    with _lock:
        while _stores:
            _stores.popitem()[1].close()


def _kind(encoding: str) -> str:
    if ":" not in encoding:
        return ""
    return ELSEWHERE if encoding.startswith(ELSEWHERE) else IN_FILE if encoding.startswith(IN_FILE) else ""


def _name(kind: str) -> str:
    if kind == IN_FILE:
        return f"STORAGES[{ALIAS!r}]"
    return f"RESULT_BACKEND {settings.RESULT_BACKEND.partition('://')[0]!r}"


def _store(kind: str) -> ResultStore:
    where = IN_FILE if kind == IN_FILE else settings.RESULT_BACKEND
    store = _stores.get(where)
    if store is None:
        with _lock:
            store = _stores.get(where)
            if store is None:
                store = _stores[where] = _new_store(where)
    return store


def _new_store(where: str) -> ResultStore:
    if where == IN_FILE:
        return FileStore()
    scheme, separator, alias = where.partition("://")
    if where == "database":
        raise UnknownResult("A result lies in a store that the settings name no more: RESULT_BACKEND is 'database'")
    if scheme == "cache":
        return CacheStore(alias)
    if separator:
        from .redis import RedisStore

        return RedisStore(where)
    try:
        made = import_string(where)()
    except Exception as error:
        raise ImproperlyConfigured(f"DJANGO_TASKS['RESULT_BACKEND'] is {where!r}, which fails: {error}") from error
    if not isinstance(made, ResultStore):
        raise ImproperlyConfigured(
            f"DJANGO_TASKS['RESULT_BACKEND'] is {where!r}; allowed: a subclass of"
            " django_tasks.backends.stores.ResultStore."
        )
    return made


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _of_parent.append(dict(_stores))  # closing them here would hang up on the parent
    _stores.clear()


#: Stores of the parent process, kept as they are.
_of_parent: list[dict[str, ResultStore]] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
