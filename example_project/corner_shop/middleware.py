"""The strictest useful Content-Security-Policy, to show that the shop's page and the admin need no more."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse


def content_security_policy(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Allow a page only what comes from the shop itself: no inline script or style, nothing from elsewhere."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        # Django's own debug pages carry their styles and scripts inline.
        if response.status_code not in (404, 500):
            response.headers["Content-Security-Policy"] = "default-src 'self'"
        return response

    return middleware
