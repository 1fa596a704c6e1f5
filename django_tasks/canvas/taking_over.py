"""``Task.replace()``: what the calls that take a task's place inherit from it."""

from __future__ import annotations

from typing import Any, cast

from ..exceptions import ImproperlyConfigured
from ..request import Context
from .primitives import _chain, group
from .signatures import Signature, checked, maybe_signature

#: Returns one of its arguments: it makes one task of a group.
ACCUMULATE = "django_tasks.accumulate"


def taking_over(sig: Any, request: Context) -> Signature:
    """Return a canvas that ends in one task, and inherits errbacks, headers and stamps of a request."""
    sig = checked(sig, f"replace() takes a signature, as task.s() returns it, not {sig!r}")
    if "chord" in sig.options:
        raise ImproperlyConfigured("What takes a task's place must not be in a chord itself")
    if isinstance(sig, _chain) and not sig.steps():
        raise ImproperlyConfigured("An empty chain cannot take a task's place")
    if isinstance(sig, group):
        sig = sig | Signature(ACCUMULATE, kwargs={"index": 0})
    elif isinstance(sig, _chain) and isinstance(sig.steps()[-1], group):
        steps = sig.steps()
        sig.tasks = [*steps[:-1], steps[-1] | Signature(ACCUMULATE, kwargs={"index": 0})]
    for errback in request.errbacks or ():
        sig.link_error(maybe_signature(errback))
    nesting = (request.replaced_task_nesting or 0) + 1
    inherited = {**stamps_of(request), **({"headers": request.headers} if request.headers else {})}
    for one in sig.tasks if isinstance(sig, _chain) else [sig]:
        one.set(**{**inherited, **one.options, "replaced_task_nesting": nesting})
    return cast(Signature, sig)


def stamps_of(request: Context) -> dict[str, Any]:
    """Return a request's stamps as options."""
    if not request.stamps:
        return {}
    return {**request.stamps, "stamped_headers": list(request.stamped_headers or request.stamps)}
