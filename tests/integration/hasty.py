"""Gives supervisors little patience with what a network may have kept back. Workers load this module by ``IMPORTS``."""

from __future__ import annotations

from django_tasks.worker import steward

steward.LATE = 3.0
