"""``overview.json``: the overview's numbers for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import translation
from django.views.decorators.http import require_safe

from ..paging import COUNT_LIMIT
from .numbers import Numbers, span_called
from .overview import LINES, Overview, overview
from .prometheus import may_see


@require_safe
def overview_json(request: HttpRequest) -> HttpResponse:
    """Answer with the numbers of the overview as JSON, over the span that ``?span=`` names.

    What is wrong is told in English, whatever the reader's language.

    For who sends ``Authorization: Bearer`` and ``METRICS_TOKEN``, or is logged in and may see the overview.
    """
    if not may_see(request):
        response = JsonResponse({"error": "Give the METRICS_TOKEN as a bearer token."}, status=401)
        response.headers["WWW-Authenticate"] = 'Bearer realm="overview"'
        return response
    with translation.override("en"):  # whoever reads it may compare sentences
        found = overview(span_called(request.GET.get("span", "")))
    return JsonResponse(told(found), headers={"Cache-Control": "no-store"})


def told(found: Overview) -> dict[str, Any]:
    """Return an overview as JSON holds it; times in seconds, moments in ISO 8601. What is not done is counted to
    ``counted_to``: a number above it says that there are at least as many."""
    return {
        "at": found.now.isoformat(),
        "span": found.span.name,
        "problems": [asdict(one) for one in found.problems],
        "counted_to": COUNT_LIMIT,
        "waiting": found.look.waiting,
        "scheduled": found.look.scheduled,
        "running": found.look.running,
        "slots": found.slots,
        "total": _numbers(found.total),
        "buckets": [{"at": moment, **_numbers(each)} for moment, each in found.buckets.items()],
        "queues": [
            {
                **asdict(row.now),
                "paused": row.pause is not None,
                "empty_in": row.empty_in,
                "growth": row.growth,
                **_numbers(row.done),
            }
            for row in found.queues
        ],
        "workers": [
            {
                "name": one.row.name,
                "status": one.status,
                "silent_for": one.silent_for,
                "concurrency": one.row.concurrency,
                "version": one.row.version,
            }
            for one in found.workers
        ],
        "tasks": {name: _numbers(each) for name, each in found.tasks.items()},
        "failures": [
            {**one.kind._asdict(), "count": one.count, "last": one.last.isoformat()}
            for one in found.failures.groups[:LINES]
        ],
    }


def _numbers(done: Numbers) -> Mapping[str, Any]:
    return {
        "succeeded": done.succeeded,
        "failed": done.failed,
        "retried": done.retried,
        "other": done.other,
        "wait_p50": done.wait(0.5),
        "wait_p95": done.wait(0.95),
        "run_p50": done.run(0.5),
        "run_p95": done.run(0.95),
        "run_seconds": done.run_seconds,
    }
