"""One page: a button for each job, the code behind it, and what came of it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from django_tasks import AsyncResult
from shop import jobs
from shop.models import Order, Product, Report

#: How many of the latest reports and orders the page shows.
SHOWN = 5


@require_safe
@never_cache
def index(request: HttpRequest) -> HttpResponse:
    context = {
        "jobs": jobs.JOBS,
        "products": Product.objects.exclude(thumbnail=""),
        "reports": [(report, _progress(report)) for report in Report.objects.exclude(task_id="")[:SHOWN]],
        "orders": Order.objects.select_related("product")[:SHOWN],
    }
    return render(request, "shop/index.html", context)


@require_POST
def start(request: HttpRequest, slug: str) -> HttpResponse:
    try:
        job = jobs.by_slug(slug)
    except KeyError:
        raise Http404(f"There is no job {slug!r}.") from None
    sent = len(job.start())
    messages.success(request, f"{job.title}: {sent} task{'' if sent == 1 else 's'} sent.")
    return redirect("index")


def _progress(report: Report) -> dict[str, Any]:
    """Return the state of the report's task, and the number of rows that it has written."""
    result = AsyncResult(report.task_id)
    info = result.info
    written = info.get("current", 0) if isinstance(info, dict) else 0
    return {"state": result.state, "current": report.rows if report.file else written}
