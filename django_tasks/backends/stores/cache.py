"""Values in one of Django's caches, which may drop them at any time."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from django.core.cache import caches

from .base import ResultStore

_PREFIX = "django_tasks:result:"


class CacheStore(ResultStore):
    """An alias of ``CACHES``."""

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def save(self, values: Mapping[str, str], lifetime: float | None) -> Mapping[str, str]:
        failed = caches[self._alias].set_many({_PREFIX + key: value for key, value in values.items()}, lifetime)
        return {key: key for key in values if _PREFIX + key not in failed}

    def load(self, reference: str) -> str | None:
        found = caches[self._alias].get(_PREFIX + reference)
        return None if found is None else str(found)

    def delete(self, references: Collection[str]) -> None:
        caches[self._alias].delete_many([_PREFIX + one for one in references])
