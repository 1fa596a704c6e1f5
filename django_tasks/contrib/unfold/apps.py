"""The app that puts our pages into the frame of django-unfold."""

from __future__ import annotations

from django.apps import AppConfig, apps
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _


class UnfoldConfig(AppConfig):
    """Has no models; its ``admin`` module, which the admin finds, registers our pages anew."""

    name = "django_tasks.contrib.unfold"
    label = "django_tasks_unfold"
    verbose_name = _("Background tasks in Unfold")

    def ready(self) -> None:
        """Raises ``ImproperlyConfigured`` without the apps that it is between."""
        for name in ("unfold", "django_tasks"):
            if not apps.is_installed(name):
                raise ImproperlyConfigured(f"{self.name} is in INSTALLED_APPS, so {name} has to be there, too")
