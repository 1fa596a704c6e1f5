"""The contract of a store. Every promise in these docstrings is a test in ``tests/backends/test_stores.py``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping


class ResultStore(ABC):
    """Keeps serialized values of successful results, each under a key of its own; what else there is to know of a task
    stays in the ledger.

    One instance serves one process, and its methods may be called from any thread. It is made without arguments, when
    it is first needed, and again after a fork. Whatever a method raises says that the store cannot be reached: a value
    that was to be saved then stays in the ledger, and whoever asks for one is told by an ``OperationalError``.
    """

    @abstractmethod
    def save(self, values: Mapping[str, str], lifetime: float | None) -> Mapping[str, str]:
        """Keep values under their keys for ``lifetime`` seconds at least (``None``: until they are deleted); return the
        references by which to find them, of those that were kept.

        A reference is a text of at most 200 characters. A key is used for one value only; saving it twice is the same
        as once.
        """

    @abstractmethod
    def load(self, reference: str) -> str | None:
        """Return a value, ``None`` if it is not there any more."""

    @abstractmethod
    def delete(self, references: Collection[str]) -> None:
        """Forget values; those that are not there are no error."""

    def close(self) -> None:  # noqa: B027 - not every store has any
        """Close every connection of this process; the next call opens a new one."""
