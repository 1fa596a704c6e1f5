"""Which request of a browser this thread, or this coroutine, is answering."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import Any, Final

from django.http import HttpRequest
from django.utils.decorators import sync_and_async_middleware

#: How :func:`remember_request` is named in ``MIDDLEWARE``.
REMEMBER_REQUEST: Final = f"{__name__}.remember_request"

#: The request that is answered here; ``None`` outside of one.
http_request: ContextVar[HttpRequest | None] = ContextVar("django_tasks_http_request", default=None)


@sync_and_async_middleware
def remember_request(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Let a call that is sent within a request take along who sent it, and by which request (``TASK_CONTEXT``)."""

    def middleware(request: HttpRequest) -> Any:
        token = http_request.set(request)
        try:
            return get_response(request)
        finally:
            http_request.reset(token)

    async def asynchronous(request: HttpRequest) -> Any:
        token = http_request.set(request)
        try:
            return await get_response(request)
        finally:
            http_request.reset(token)

    return asynchronous if iscoroutinefunction(get_response) else middleware
