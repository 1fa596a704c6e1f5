"""Gives supervisors little patience with silent children. Workers load this module by ``IMPORTS``."""

from __future__ import annotations

from django_tasks.worker import supervisor

supervisor.STUCK_AFTER = 0.7
