"""Settings for a part of a test: eager mode above all."""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from django.test.utils import TestContextDecorator, override_settings

from ..conf import NAMESPACE


def overridden(**values: Any) -> override_settings:
    """Return ``override_settings`` with these keys of ``DJANGO_TASKS`` changed and the others kept."""
    given = getattr(django_settings, NAMESPACE, None) or {}
    # Keys may be written in any case, and one that stands there twice is an error.
    kept = {key: value for key, value in given.items() if str(key).upper() not in values}
    return override_settings(**{NAMESPACE: {**kept, **values}})


class eager_tasks(TestContextDecorator):
    """Run tasks where they are called, at once: ``TASK_ALWAYS_EAGER`` for a block, a function or a ``TestCase``.

    ``with eager_tasks(): …``, ``@eager_tasks()`` on a test (``async def``, too) or on a class of them. ``propagate``:
    raise a task's exception from the call that sent it (``TASK_EAGER_PROPAGATES``); a retry is no failure, only what
    the last attempt raises is. The other settings stay as they are.
    """

    def __init__(self, *, propagate: bool = True) -> None:
        super().__init__()
        self._values = {"TASK_ALWAYS_EAGER": True, "TASK_EAGER_PROPAGATES": propagate}
        # A decorated function may call itself.
        self._open: list[override_settings] = []

    def enable(self) -> None:
        settings = overridden(**self._values)
        settings.enable()
        self._open.append(settings)

    def disable(self) -> None:
        self._open.pop().disable()
