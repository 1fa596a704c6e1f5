"""The app: finds the tasks of every installed app, and registers the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class TasksConfig(AppConfig):
    """Background tasks."""

    name = "django_tasks"
    label = "django_tasks"
    verbose_name = _("Background tasks")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import builtin, checks, registry  # noqa: F401 - checks and tasks register themselves

        registry.autodiscover()
