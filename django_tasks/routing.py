"""Which queue and which priority a call gets: ``TASK_ROUTES``, in every form that Celery's has
(https://docs.celeryq.dev/en/stable/userguide/routing.html#routers).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from django.utils.module_loading import import_string

from .conf import PRIORITIES, QUEUE_NAME, settings
from .exceptions import ImproperlyConfigured

__all__ = ["check_routes", "route", "validate_priority", "validate_queue"]

#: What a route may say. The last two are AMQP's, and mean the queue where none is named.
_KEYS: Final = ("queue", "priority", "routing_key", "exchange")
_GLOB: Final = re.compile(r"[*?\[]")

Router = Callable[..., Any]


def route(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], task: Any = None
) -> dict[str, Any]:
    """Return what ``TASK_ROUTES`` says of a call: a dict with ``queue``, ``priority``, both or neither.

    The first router that says something counts. ``options`` are the call's own, for a router function to see; merging
    the route with them is the caller's business.

    Raises ``ImproperlyConfigured`` when ``TASK_ROUTES`` cannot be read, ``ValueError`` or ``TypeError`` when a router
    function returns what is no route, and whatever it raises itself.
    """
    routes = settings.TASK_ROUTES
    if not routes:
        return {}
    for router in _compiled(routes):
        found = router(name, args, kwargs, options, task=task)
        if found:
            # Patterns were checked when they were read, functions may return anything.
            return dict(found) if isinstance(router, _Patterns) else _read_route(found, f"The router {router!r}")
    return {}


def check_routes() -> list[str]:
    """Return what is wrong with ``TASK_ROUTES``, one sentence or two; ``[]`` when all is well. Imports dotted paths."""
    try:
        for router in _compile(settings.TASK_ROUTES):
            if isinstance(router, _Dotted):
                router.load()
    except ImproperlyConfigured as exc:
        return [str(exc)]
    return []


def validate_queue(name: Any) -> str:
    """Return ``name`` if a queue may be called so.

    Raises ``TypeError`` or ``ValueError`` with what was given and what is allowed.
    """
    if isinstance(name, str) and QUEUE_NAME.fullmatch(name):
        return name
    error = ValueError if isinstance(name, str) else TypeError
    raise error(f"queue is {_shown(name)}; allowed: 1 to 64 of the characters A-Z a-z 0-9 _ . : -")


def validate_priority(value: Any) -> int:
    """Return ``value`` if it is a priority, from -100 to 100; higher runs first.

    Raises ``TypeError`` or ``ValueError`` with what was given and what is allowed.
    """
    allowed = f"allowed: a whole number from {PRIORITIES[0]} to {PRIORITIES[-1]}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"priority is {_shown(value)}; {allowed}")
    if value not in PRIORITIES:
        raise ValueError(f"priority is {_shown(value)}; {allowed}")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"


# Reading TASK_ROUTES -------------------------------------------------------------------------------------------------


class _Patterns:
    """Routes by exact name first, then by the first matching glob or regular expression."""

    def __init__(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        exact: dict[str, dict[str, Any]] = {}
        patterns: list[tuple[re.Pattern[str], dict[str, Any]]] = []
        for key, value in pairs:
            found = _read_route(value, f"TASK_ROUTES, for {_shown(key)},", ImproperlyConfigured)
            if isinstance(key, re.Pattern):
                patterns.append((key, found))
            elif not isinstance(key, str):
                raise ImproperlyConfigured(
                    f"TASK_ROUTES has the key {_shown(key)}; allowed: a task's name, a glob such as 'app.tasks.*', "
                    f"or a compiled regular expression."
                )
            elif _GLOB.search(key):
                patterns.append((re.compile(fnmatch.translate(key)), found))
            else:
                exact.setdefault(key, found)

        def look_up(name: str) -> dict[str, Any] | None:
            if name in exact:
                return exact[name]
            return next((found for pattern, found in patterns if pattern.match(name)), None)

        self._look_up = lru_cache(maxsize=1024)(look_up)

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        return self._look_up(name)


class _Dotted:
    """A router function named by its dotted path; imported at the first call, when apps are ready."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._function: Router | None = None

    def load(self) -> Router:
        """Return the function. Raises ``ImproperlyConfigured`` when there is none."""
        if self._function is None:
            try:
                found = import_string(self.path)
            except ImportError as exc:
                raise ImproperlyConfigured(f"TASK_ROUTES names the router {self.path!r}: {exc}") from exc
            if not callable(found):
                raise ImproperlyConfigured(f"TASK_ROUTES names the router {self.path!r}, which is no function.")
            self._function = found
        return self._function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.load()(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self.path)


_last: tuple[Any, list[Router]] = (None, [])


def _compiled(routes: Any) -> list[Router]:
    global _last
    # One tuple, swapped whole, so that threads never see one setting's routers beside another's.
    given, routers = _last
    if given is not routes:
        routers = _compile(routes)
        _last = (routes, routers)
    return routers


def _compile(routes: Any) -> list[Router]:
    if routes is None:
        return []
    if isinstance(routes, list | tuple):
        return [_router(item) for item in _join_pairs(routes)]
    return [_router(routes)]


def _join_pairs(routes: Sequence[Any]) -> list[Any]:
    """Put neighbouring (pattern, route) pairs of a list together, so that exact names among them come first."""
    joined: list[Any] = []
    open_pairs: list[Any] | None = None
    for item in routes:
        if not _is_pair(item):
            joined.append(item)
            open_pairs = None
        elif open_pairs is None:
            open_pairs = [item]
            joined.append(open_pairs)
        else:
            open_pairs.append(item)
    return joined


def _is_pair(item: Any) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str | re.Pattern)


def _router(item: Any) -> Router:
    if isinstance(item, Mapping):
        return _Patterns(item.items())
    if isinstance(item, str):
        return _Dotted(item)
    if isinstance(item, list | tuple):
        for pair in item:
            if not _is_pair(pair):
                raise ImproperlyConfigured(f"TASK_ROUTES has {_shown(pair)}; allowed: a pair (pattern, route).")
        return _Patterns((key, value) for key, value in item)
    if callable(item):
        return item  # type: ignore[no-any-return]
    raise ImproperlyConfigured(
        f"TASK_ROUTES has {_shown(item)}; "
        f"allowed: a dict, a list of pairs (pattern, route), a function or its dotted path."
    )


def _read_route(value: Any, where: str, error: type[Exception] | None = None) -> dict[str, Any]:
    """Return ``value``, a queue's name or a dict, as a dict of valid ``queue`` and ``priority``."""
    try:
        if isinstance(value, str):
            return {"queue": validate_queue(value)}
        if not isinstance(value, Mapping):
            raise TypeError(f"a route is {_shown(value)}; allowed: a queue's name, or a dict with queue and priority")
        unknown = [key for key in value if key not in _KEYS]
        if unknown:
            raise ValueError(f"a route has no key {_shown(unknown[0])}; allowed: {', '.join(_KEYS)}")
        found: dict[str, Any] = {}
        queue = value.get("queue") or value.get("routing_key") or value.get("exchange")
        if queue is not None:
            found["queue"] = validate_queue(queue)
        if value.get("priority") is not None:
            found["priority"] = validate_priority(value["priority"])
        return found
    except (TypeError, ValueError) as exc:
        raise (error or type(exc))(f"{where} gives what is no route: {exc}.") from exc
