"""The site in the frame of django-unfold. Its scripts are written into its pages, so no strict policy is possible."""

from __future__ import annotations

from typing import Any

from tests.browser.settings import *  # noqa: F403
from tests.browser.settings import INSTALLED_APPS as PLAIN_APPS
from tests.browser.settings import MIDDLEWARE as PLAIN_MIDDLEWARE

INSTALLED_APPS = ["unfold", "django_tasks.contrib.unfold", *PLAIN_APPS]
MIDDLEWARE = [name for name in PLAIN_MIDDLEWARE if not name.endswith("only_from_here")]
UNFOLD: dict[str, Any] = {"SIDEBAR": {"navigation": "django_tasks.contrib.unfold.sidebar.navigation"}}
