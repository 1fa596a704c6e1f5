"""Periodic tasks as rows: what runs when, what the code declares of it, and when a row runs next. No process.

The models are :mod:`django_tasks.models`'s, under django-celery-beat's names; :mod:`django_tasks.beat` sends what is
due.
"""

from __future__ import annotations

from typing import Final

#: Seconds after which a silent beat counts as lost.
BEAT_LOST_AFTER: Final = 20.0
