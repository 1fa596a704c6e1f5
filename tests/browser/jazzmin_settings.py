"""The site in the frame of django-jazzmin. Its styles are written into its pages, so no strict policy is possible."""

from __future__ import annotations

from tests.browser.settings import *  # noqa: F403
from tests.browser.settings import INSTALLED_APPS as PLAIN_APPS
from tests.browser.settings import MIDDLEWARE as PLAIN_MIDDLEWARE

INSTALLED_APPS = ["jazzmin", *PLAIN_APPS]
MIDDLEWARE = [name for name in PLAIN_MIDDLEWARE if not name.endswith("only_from_here")]
JAZZMIN_SETTINGS = {"use_google_fonts_cdn": False}
