"""The site under test as a browser sees it: nothing may come from elsewhere, and no script or style stand in a page."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from tests.settings import *  # noqa: F403
from tests.settings import DJANGO_TASKS as PLAIN_TASKS
from tests.settings import MIDDLEWARE as PLAIN_MIDDLEWARE

MIDDLEWARE = [*PLAIN_MIDDLEWARE, "tests.browser.settings.only_from_here"]
MIDDLEWARE.insert(
    MIDDLEWARE.index("django.middleware.common.CommonMiddleware"), "django.middleware.locale.LocaleMiddleware"
)
#: Whatever a page writes as a number has to survive this.
USE_THOUSAND_SEPARATOR = True
DJANGO_TASKS = {**PLAIN_TASKS, "IMPORTS": ["tests.browser.shop"]}


def only_from_here(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Send the strictest policy that Django's own admin keeps."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers["Content-Security-Policy"] = "default-src 'self'"
        return response

    return answer
