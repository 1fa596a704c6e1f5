"""Which page stands for which entry of the admin's index."""

from __future__ import annotations

from django.contrib import admin

from ..models import Health, Overview, Queue, TaskType, Workflow
from .health import HealthAdmin
from .pages import OverviewAdmin
from .queues import QueueAdmin
from .types import TaskTypeAdmin
from .workflows import WorkflowAdmin


def register(site: admin.AdminSite) -> None:
    """Register the pages on ``site``."""
    site.register(Overview, OverviewAdmin)
    site.register(Queue, QueueAdmin)
    site.register(TaskType, TaskTypeAdmin)
    site.register(Workflow, WorkflowAdmin)
    site.register(Health, HealthAdmin)
