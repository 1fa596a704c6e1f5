"""``/metrics``: the site's numbers for Prometheus, read from the database when asked, so no worker need run.

Needs the extra ``prometheus``. :class:`TasksCollector` also fits into a registry of the site's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.utils import crypto
from django.views.decorators.http import require_safe

from .. import dashboard
from ..conf import settings
from ..metrics.histogram import BOUNDS
from ..metrics.rows import OUTCOMES
from ..models import Beat, Limit, PeriodicTask, Task, Worker
from ..registry import tasks
from ..states import WAITING
from . import numbers
from .numbers import Numbers
from .overview import paused

if TYPE_CHECKING:
    from prometheus_client import Metric

_STATES: Final = ("waiting", "scheduled", "running", "limited", "unroutable")
_WORKERS: Final = ("online", "draining", "lost")
_BEATS: Final = ("online", "lost")


class TasksCollector:
    """Gives the numbers of all queues, tasks, workers and beats at the moment it is asked.

    ``prometheus_client.REGISTRY.register(TasksCollector())`` adds them to those of the site. Asking takes about ten
    queries, one of which walks over the to-do list. Raises ``ImproperlyConfigured`` without the extra ``prometheus``.
    """

    def __init__(self) -> None:
        _library()

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Ask the database, and return all metrics."""
        now = dashboard.database_now()
        workers = dashboard.current_workers()
        yield from _of_queues(now, workers)
        yield from _of_workers(now, workers)
        yield from _of_tasks(numbers.ever())
        yield from _of_beats(now)


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer a scrape in the format that it accepts.

    For who sends ``Authorization: Bearer`` and ``METRICS_TOKEN``, or is logged in and may see the overview.
    """
    if not may_see(request):
        response = HttpResponse("Give the METRICS_TOKEN as a bearer token.\n", status=401, content_type="text/plain")
        response.headers["WWW-Authenticate"] = 'Bearer realm="metrics"'
        return response
    _library()
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(TasksCollector())
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(registry), content_type=content_type, headers={"Cache-Control": "no-store"})


# Inside --------------------------------------------------------------------------------------------------------------


def _library() -> None:
    try:
        import prometheus_client  # noqa: F401 - is it there?
    except ImportError as error:
        raise ImproperlyConfigured(
            "Metrics need prometheus_client: pip install 'django-workbeat[prometheus]'"
        ) from error


def may_see(request: HttpRequest) -> bool:
    """Has the asker the token, or a session of somebody who may see the overview?"""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    token = settings.METRICS_TOKEN
    if token and scheme.lower() == "bearer" and crypto.constant_time_compare(given.strip(), token):
        return True
    user = getattr(request, "user", None)
    return user is not None and user.is_active and user.has_perm("django_tasks.view_overview")


def _gauge(name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"django_tasks_{name}", text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _of_queues(now: datetime, workers: Sequence[Worker]) -> Iterator[Metric]:
    found = {queue.name: queue for queue in dashboard.queue_numbers(now, workers)}
    pauses = {limit.name for limit in paused(Limit.QUEUE) if limit.is_paused(now)}
    declared = {task.queue for task in tasks.values() if isinstance(task.queue, str)}
    blocked = _blocked()
    names = sorted({settings.TASK_DEFAULT_QUEUE, *declared, *found, *pauses})
    online = [worker for worker in workers if worker.status(now) == "online"]
    states = [
        ([name, state], getattr(found[name], state) if name in found else 0) for name in names for state in _STATES
    ]
    states += [([name, "blocked"], blocked.get(name, 0)) for name in names]
    oldest = [([name], (found[name].oldest_wait or 0) if name in found else 0) for name in names]
    consumers = [([name], sum(dashboard.consumes(worker, name) for worker in online)) for name in names]
    yield _gauge("queue_tasks", "Tasks that are not done, by what they wait for.", ["queue", "state"], states)
    yield _gauge("queue_oldest_seconds", "Since when the oldest waiting task is due.", ["queue"], oldest)
    yield _gauge("queue_workers", "Online workers that consume the queue.", ["queue"], consumers)
    yield _gauge("queue_paused", "Whether it is paused.", ["queue"], [([name], name in pauses) for name in names])


def _blocked() -> dict[str, int]:
    """Return how many tasks of each queue wait for others of their workflows."""
    waiting = Task.objects.using(settings.DATABASE).filter(state=WAITING)
    return dict(waiting.order_by().values_list("queue").annotate(Count("pk")))


def _of_workers(now: datetime, workers: Sequence[Worker]) -> Iterator[Metric]:
    statuses = [worker.status(now) for worker in workers]
    slots = sum(worker.concurrency for worker in workers if worker.status(now) == "online")
    counts = [([status], statuses.count(status)) for status in _WORKERS]
    yield _gauge("workers", "Workers that did not stop.", ["status"], counts)
    yield _gauge("worker_slots", "How many tasks online workers run at a time.", [], [([], slots)])


def _of_tasks(ever: Mapping[tuple[str, str], Numbers]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    finished = CounterMetricFamily(
        "django_tasks_attempts", "Attempts that ended, by how they did.", labels=["queue", "task", "outcome"]
    )
    for (queue, name), done in sorted(ever.items()):
        for outcome in OUTCOMES:
            finished.add_metric([queue, name, outcome], getattr(done, outcome))
    yield finished
    yield _histogram(
        "wait_seconds",
        "From due to start.",
        "queue",
        numbers.grouped(ever, 0),
        lambda one: (one.waits, one.wait_seconds),
    )
    yield _histogram(
        "run_seconds", "From start to end.", "task", numbers.grouped(ever, 1), lambda one: (one.runs, one.run_seconds)
    )


def _histogram(
    name: str,
    text: str,
    label: str,
    found: Mapping[str, Numbers],
    part: Callable[[Numbers], tuple[Sequence[int], float]],
) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(f"django_tasks_{name}", text, labels=[label])
    ends = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
    for key, each in sorted(found.items()):
        counts, seconds = part(each)
        family.add_metric([key], list(zip(ends, map(float, accumulate(counts)), strict=True)), seconds)
    return family


def _of_beats(now: datetime) -> Iterator[Metric]:
    beats = list(Beat.objects.filter(stopped_at=None))
    statuses = [beat.status(now) for beat in beats]
    # Without a beat there is none that could be late: no number says so, a zero would say that all is well.
    late: list[tuple[Sequence[str], float]] = [([], beat.late) for beat in beats if beat.status(now) == "online"]
    enabled = PeriodicTask.objects.filter(enabled=True)
    first = enabled.filter(next_run_at__lt=now).order_by("next_run_at").values_list("next_run_at", flat=True).first()
    overdue = (now - first).total_seconds() if first is not None else 0.0
    yield _gauge("beats", "Beats that did not stop.", ["status"], [([one], statuses.count(one)) for one in _BEATS])
    yield _gauge("beat_late_seconds", "By how much the run that was sent last was late.", [], late and [max(late)])
    yield _gauge("periodic_overdue_seconds", "Since when a periodic task should have been sent.", [], [([], overdue)])
