"""What a call takes along of the place where it is made: the language, the time zone, the process, the user, a tenant.

It is captured when a task is sent, travels in the message's options, and is restored around each of its attempts and
their handlers. Senders pay for it only where there is a hook that has something to say.
"""

from __future__ import annotations

import datetime
import os
import socket
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from django.http import HttpRequest
from django.utils import timezone, translation

from .conf import settings
from .exceptions import ImproperlyConfigured
from .middleware import http_request

__all__ = ["ContextHook", "register_context", "unregister_context"]

T = TypeVar("T")

#: The key under which it travels.
OPTION = "context"
#: What is known only within a request, and only if a middleware remembers it.
OF_REQUEST: Final = ("user", "request")
#: Most characters of a request that are kept.
REQUEST_LIMIT: Final = 500


class ContextHook(Protocol):
    """What :func:`register_context` takes: an object, or a class that is made without arguments."""

    def capture(self) -> Any:
        """Return what a call takes along, a value that JSON can hold; ``None`` is nothing."""

    def restore(self, value: Any, /) -> AbstractContextManager[object]:
        """Return what makes it so for the time of a task, and undoes it afterwards."""


class _Hook(NamedTuple):
    capture: Callable[[], Any]
    restore: Callable[[Any], AbstractContextManager[object]]


def _capture_language() -> str | None:
    return translation.get_language()


def _capture_time_zone() -> str | int | None:
    """Return what was activated: a zone by its name, or minutes east of UTC."""
    # What nobody activated is the worker's business: its TIME_ZONE is the same setting.
    active = getattr(timezone._active, "value", None)  # type: ignore[attr-defined]
    if isinstance(active, zoneinfo.ZoneInfo):
        return str(active.key)
    offset = active.utcoffset(None) if isinstance(active, datetime.timezone) else None
    return None if offset is None else int(offset.total_seconds() // 60)


def _restore_time_zone(value: str | int) -> AbstractContextManager[object]:
    return timezone.override(value if isinstance(value, str) else timezone.get_fixed_timezone(value))


def origin() -> str:
    """Return which process this is, as Celery writes it into a message."""
    return f"gen{os.getpid()}@{socket.gethostname()}"


def _user_of(request: HttpRequest) -> dict[str, str] | None:
    """Return the key and the name of who is logged in."""
    user: Any = getattr(request, "user", None)
    return {"id": str(user.pk), "name": user.get_username()} if user is not None and user.is_authenticated else None


def _address_of(request: HttpRequest) -> str:
    """Return the method and the path; what follows a question mark may be somebody's secret."""
    return f"{request.method} {request.path}"[:REQUEST_LIMIT]


def _of_request(read: Callable[[HttpRequest], Any]) -> _Hook:
    """Return a hook for what a request tells; within a task, it is what the request told from which that one came."""
    received: ContextVar[Any] = ContextVar("received", default=None)

    def capture() -> Any:
        request = http_request.get()
        return received.get() if request is None else read(request)

    @contextmanager
    def restore(value: Any) -> Iterator[None]:
        token = received.set(value)
        try:
            yield
        finally:
            received.reset(token)

    return _Hook(capture, restore)


_BUILT_IN: Mapping[str, _Hook] = {
    "language": _Hook(_capture_language, translation.override),
    "timezone": _Hook(_capture_time_zone, _restore_time_zone),
    "origin": _Hook(origin, nullcontext),  # it is told, and changes nothing
    "user": _of_request(_user_of),
    "request": _of_request(_address_of),
}
_registered: dict[str, _Hook] = {}


def register_context(name: str) -> Callable[[T], T]:
    """Take something along with every call that is made from now on: ``@register_context("tenant")`` on a class.

    The class, made once without arguments, or the object has ``capture()``, called by whoever sends a task, and
    ``restore(value)``, a context manager around each attempt in the worker (:class:`ContextHook`). Senders and workers
    have to import it both: in an app's ``tasks.py``, or its ``ready()``. A worker that does not know the name fails the
    task rather than run it without.

    Raises ``ImproperlyConfigured`` for a name that is taken, and for an object without these methods.
    """

    def register(hook: T) -> T:
        made: Any = hook() if isinstance(hook, type) else hook
        for method in ("capture", "restore"):
            if not callable(getattr(made, method, None)):
                raise ImproperlyConfigured(f"@register_context({name!r}): {hook!r} has no method {method}()")
        if not name:
            raise ImproperlyConfigured(f"@register_context({name!r}): its name must be a text")
        if name in _BUILT_IN or name in _registered:
            raise ImproperlyConfigured(f"@register_context({name!r}): the name is taken")
        _registered[name] = _Hook(made.capture, made.restore)
        return hook

    return register


def unregister_context(name: str) -> None:
    """Forget a hook, as tests do. Raises ``KeyError`` when there is none."""
    del _registered[name]


def captured() -> dict[str, Any] | None:
    """Return what a call that is made here takes along; ``None`` for nothing. Raises what a hook raises."""
    if not _registered and not settings.TASK_CONTEXT:
        return None
    hooks = {**{name: _BUILT_IN[name] for name in settings.TASK_CONTEXT}, **_registered}
    found = {name: value for name, hook in hooks.items() if (value := hook.capture()) is not None}
    return found or None


@contextmanager
def restored(values: Mapping[str, Any]) -> Iterator[None]:
    """Have things as they were for the sender. Raises ``ImproperlyConfigured`` for a hook that is not known here."""
    with ExitStack() as stack:
        for name, value in values.items():
            hook = _BUILT_IN.get(name) or _registered.get(name)
            if hook is None:
                raise ImproperlyConfigured(
                    f"The call carries the context {name!r}, for which this worker has no @register_context({name!r}); "
                    "import it where the worker does, as in an app's tasks.py."
                )
            stack.enter_context(hook.restore(value))
        yield
