"""Addresses for a site's own pages: ``path("tasks/", include("django_tasks.urls"))``."""

from __future__ import annotations

from django.urls import path

from .views import progress

app_name = "django_tasks"
urlpatterns = [path("progress/<str:token>/", progress, name="progress")]
