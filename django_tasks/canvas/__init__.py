"""Calls as data, and what can be built of them: signatures, chains, groups, chords.

Names and meanings are Celery's (https://docs.celeryq.dev/en/stable/userguide/canvas.html).
"""

from __future__ import annotations

from .batches import batch
from .dags import dag
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
    "batch",
    "chain",
    "chord",
    "chunks",
    "dag",
    "group",
    "maybe_signature",
    "maybe_subtask",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
]
