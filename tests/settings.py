"""Settings of the tests, and of the processes which they start.

``DATABASE_URL`` names the database (see :func:`tests.database_urls.settings_from_url`); ``TEST_DJANGO_TASKS`` is a JSON
object that goes into ``DJANGO_TASKS``.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tests.database_urls import settings_from_url

DEFAULT_DATABASE = Path(tempfile.gettempdir()) / f"django-workbeat-tests-{os.getuid()}.sqlite3"

SECRET_KEY = "for tests only"  # noqa: S105 - guards nothing
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_tasks",
    "tests.app",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": settings_from_url(os.environ.get("DATABASE_URL") or f"sqlite:///{DEFAULT_DATABASE}")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
#: The safe ones take a tenth of a second for each user that a test makes.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

DJANGO_TASKS: dict[str, Any] = {**json.loads(os.environ.get("TEST_DJANGO_TASKS") or "{}")}
