"""Calls as data, and what can be built of them: signatures, chains, groups, chords.

Names and meanings are Celery's (https://docs.celeryq.dev/en/stable/userguide/canvas.html).
"""

from __future__ import annotations

from .maps import chunks, xmap, xstarmap
from .primitives import _chain, _chord, chain, chord, group
from .sending import Sender
from .signatures import Signature, maybe_signature, maybe_subtask, signature, subtask
from .stamping import StampingVisitor

__all__ = [
    "Sender",
    "Signature",
    "StampingVisitor",
    "_chain",
    "_chord",
    "chain",
    "chord",
    "chunks",
    "group",
    "maybe_signature",
    "maybe_subtask",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
]
