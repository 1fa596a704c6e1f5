"""URLs of a project whose tasks are in an admin site of its own, beside the default one."""

from __future__ import annotations

from django.contrib.admin import AdminSite
from django.urls import path

from django_tasks.admin import register_all
from tests.urls import urlpatterns as default

operations_site = AdminSite(name="operations")
register_all(operations_site)

urlpatterns = [*default, path("operations/", operations_site.urls)]
