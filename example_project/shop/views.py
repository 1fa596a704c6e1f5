"""One page: buttons for each job, the code behind them, and what came of it. And a partner who takes webhooks."""

from __future__ import annotations

import random

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from shop import jobs, webhooks
from shop.models import Order, Product, Report

#: How many of the latest reports and orders the page shows.
SHOWN = 5


@require_safe
@never_cache
def index(request: HttpRequest) -> HttpResponse:
    sent = request.session.get("sent", {})
    told = {message.extra_tags: message.message for message in messages.get_messages(request)}
    context = {
        "jobs": [(job, told.get(job.slug), sent.get(job.slug)) for job in jobs.JOBS],
        "products": Product.objects.exclude(thumbnail=""),
        "reports": Report.objects.exclude(task_id="")[:SHOWN],
        "orders": Order.objects.select_related("product")[:SHOWN],
    }
    return render(request, "shop/index.html", context)


@require_POST
def start(request: HttpRequest, slug: str) -> HttpResponse:
    try:
        job = jobs.by_slug(slug)
        begin = job.behind(request.POST.get("button"))
    except KeyError as error:
        raise Http404(f"There is no job or button {error}.") from None
    results = begin()
    if results:  # the page tells of the first one, whatever becomes of it
        first = {"id": results[0].id, "workflow": results[0].root_id if job.is_workflow else ""}
        request.session["sent"] = {**request.session.get("sent", {}), slug: first}
    tasks = f"{len(results):,} task{'' if len(results) == 1 else 's'}"
    messages.success(request, f"{job.title}: {tasks} sent.", extra_tags=slug)
    return redirect(f"{reverse('index')}#{slug}")


@csrf_exempt  # a program sends it, and signs what it sends
@require_POST
def partner(request: HttpRequest) -> HttpResponse:
    """Stand in for the partner: take a webhook, but now and then answer 500, or 429 and when to come back."""
    if not webhooks.is_signed(request.body, request.headers.get(webhooks.SIGNATURE, "")):
        return HttpResponse(status=403)
    if random.random() < settings.SHOP_PARTNER_FAILURE_RATE:
        return random.choice([HttpResponse(status=500), HttpResponse(status=429, headers={"Retry-After": "2"})])
    return HttpResponse(status=204)
