"""Gives supervisors little patience with silent children. Workers load this module by ``IMPORTS``."""

from __future__ import annotations

from django_tasks.worker import processes

processes.STUCK_AFTER = 0.7
