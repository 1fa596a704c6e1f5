"""Task ids: UUIDs of version 7 made by the caller, and the UUID that stands for a free-form id.

Ids are known before the row exists, and in order of time, so that the primary key grows at its right edge (RFC 9562).
"""

from __future__ import annotations

import os
import threading
import time
import uuid

#: Name space of the UUIDv5 that stands for a Celery-style free-form ``task_id``.
NAMESPACE = uuid.UUID("6ba98b4f-5d3e-5b0c-9a57-2f6d1d1f3c11")

_BLOCK = 8 * 512


class _Entropy(threading.local):
    """A thread's stock of random bytes: one system call for 512 ids."""

    block = b""
    at = 0


_entropy = _Entropy()


def _forget() -> None:
    # A forked child must not draw the same bytes as its parent.
    _entropy.block = b""
    _entropy.at = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def new_id() -> str:
    """Return a new UUIDv7 in its canonical form; 74 of its bits are random or below a millisecond."""
    stock = _entropy
    at = stock.at
    if at >= len(stock.block):
        stock.block = os.urandom(_BLOCK)
        at = 0
    stock.at = at + 8
    nanoseconds = time.time_ns()
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    sub = rest * 4096 // 1_000_000  # 12 bits below the millisecond keep ids of one process in order
    tail = int.from_bytes(stock.block[at : at + 8], "big") & 0x3FFFFFFFFFFFFFFF | 0x8000000000000000
    text = f"{milliseconds:012x}7{sub:03x}{tail:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def key_of(task_id: str) -> str:
    """Return the canonical UUID under which ``task_id`` is stored: itself, or a UUIDv5 of a free-form id."""
    try:
        return str(uuid.UUID(task_id))
    except ValueError:
        return str(uuid.uuid5(NAMESPACE, task_id))


def is_key(task_id: str) -> bool:
    """Tell whether ``task_id`` is a UUID in its canonical form, so that no second spelling need be kept."""
    return key_of(task_id) == task_id


def dashed(value: object) -> str:
    """Return the canonical form of what a database gave for a UUID: with or without dashes, text or ``UUID``."""
    text = value if isinstance(value, str) else str(value)
    if len(text) == 32:
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return text
