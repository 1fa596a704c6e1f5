"""What a site's own pages may ask about one task: how far it is, as JSON."""

from __future__ import annotations

from typing import Any, Final

from django.core import signing
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from . import access, display, ids, states
from .conf import settings
from .models import Task, TaskResult

#: Seconds for which an address with a signature answers whoever has it.
SIGNED_FOR: Final = 86_400
_SALT: Final = "django_tasks.progress"


def progress_url(task_id: str) -> str:
    """Return an address that tells, for a day, whoever has it how far this task is, and nothing else.

    Raises ``NoReverseMatch`` when the project does not include ``django_tasks.urls``.
    """
    return reverse("django_tasks:progress", args=(signing.dumps(str(task_id), salt=_SALT, compress=False),))


def progress_of(task_id: str) -> dict[str, Any]:
    """Return the state of a task and how far it is: ``state``, ``finished``, ``current``, ``total``, ``percent``.

    The numbers are what the task told last in ``meta``, ``None`` if it told none; nothing else of it is given away. The
    state of an id that nobody knows is ``UNKNOWN``.
    """
    key = ids.key_of(task_id)
    task = Task.objects.using(settings.DATABASE).filter(pk=key).only("state", "custom_state", "meta").first()
    told: dict[str, Any] = {"current": None, "total": None, "percent": None}
    if task is not None:
        if (numbers := display.numbers(task)) is not None:
            current, total = numbers
            told = {"current": current, "total": total, "percent": round(100 * current / total, 1)}
        return {"state": task.shown_state, "finished": False, **told}
    result = TaskResult.objects.using(settings.DATABASE).filter(pk=key).only("state").first()
    if result is None:
        return {"state": "UNKNOWN", "finished": False, **told}
    if result.state == states.SUCCESS:
        told["percent"] = 100.0
    return {"state": result.state, "finished": True, **told}


@never_cache
@require_safe
def progress(request: HttpRequest, token: str) -> HttpResponse:
    """Tell how far a task is, as :func:`progress_of` does: by a signed address, or by the task's id to those who may
    see tasks."""
    try:
        task_id = signing.loads(token, salt=_SALT, max_age=SIGNED_FOR)
    except signing.BadSignature:
        if not _may_look(request, token):
            return JsonResponse({"error": "This address is not signed, or has expired."}, status=403)
        task_id = token
    return JsonResponse(progress_of(task_id))


def _may_look(request: HttpRequest, task_id: str) -> bool:
    user: Any = getattr(request, "user", None)
    if user is None or not user.is_active or len(task_id) > 255:
        return False
    key = ids.key_of(task_id)
    for model, permission in ((Task, "view_task"), (TaskResult, "view_taskresult")):
        rows: Any = model._default_manager.using(settings.DATABASE).filter(pk=key)
        if user.has_perm(f"django_tasks.{permission}") and access.visible(request, rows).exists():
            return True
    return False
