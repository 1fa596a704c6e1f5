"""Stamps: headers that a visitor, or the caller, writes on every signature of a canvas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

__all__ = ["StampingVisitor", "merged"]


class StampingVisitor(ABC):
    """Walks a canvas that is stamped and says which stamps each part gets.

    Each method returns the stamps to add as a dict; what is named in ``"stamped_headers"`` of it is a stamp, all of it
    if that is missing. Names are Celery's (https://docs.celeryq.dev/en/stable/userguide/canvas.html#stamping).
    """

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """Return the stamps of a task's signature."""

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:
        """Return the stamps of a group and its members."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:  # noqa: B027 - not every visitor asks
        """Leave a group."""

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any]:
        """Return the stamps of a chain and its steps."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:  # noqa: B027 - not every visitor asks
        """Leave a chain."""

    def on_chord_header_start(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """Return the stamps of a chord's header; by default, those of a group."""
        sig.tasks = sig.header_group()
        return self.on_group_start(sig.tasks, **headers)

    def on_chord_header_end(self, sig: Any, **headers: Any) -> None:
        """Leave a chord's header."""
        self.on_group_end(sig.tasks, **headers)

    def on_chord_body(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """Return the stamps of a chord's body."""
        return {}

    def on_callback(self, callback: Any, **headers: Any) -> dict[str, Any]:
        """Return the stamps of what is linked."""
        return {}

    def on_errback(self, errback: Any, **headers: Any) -> dict[str, Any]:
        """Return the stamps of what is linked for an error."""
        return {}


def merged(
    headers: Mapping[str, Any],
    visited: Mapping[str, Any] | None,
    own: Mapping[str, Any] | None,
    *,
    append: bool,
) -> dict[str, Any]:
    """Return the stamps that a signature gets: those handed down, the visitor's, and its own.

    A stamp that is given twice becomes a list of both with ``append``, or if both are lists; otherwise what was handed
    down wins over the visitor's, and that over the signature's own.
    """
    stamps = dict(headers)
    names = list(stamps.pop("stamped_headers", list(stamps)))
    if visited is not None:
        given = dict(visited)
        names += given.pop("stamped_headers", list(given))
        _add(stamps, given, append)
    if own is not None:
        names += own.get("stamped_headers", [])
        _add(stamps, {name: own[name] for name in names if name in own}, append)
    stamps["stamped_headers"] = list(dict.fromkeys(names))
    return stamps


def _add(stamps: dict[str, Any], more: Mapping[str, Any], append: bool) -> None:
    for name, value in more.items():
        if name not in stamps:
            stamps[name] = value
        elif isinstance(stamps[name], dict) and isinstance(value, Mapping):
            inner = dict(stamps[name])
            _add(inner, value, append)
            stamps[name] = inner
        elif append or (isinstance(stamps[name], list) and isinstance(value, list)):
            stamps[name] = [*_as_list(stamps[name]), *_as_list(value)]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
