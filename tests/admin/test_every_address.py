"""Every address of the admin, and everything that can be posted to one: by whom, from where, and with what effect.

The addresses are those that Django knows, and the orders those that the pages declare, so that none is forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import get_resolver

from django_tasks import actions, failures, ids, limits
from django_tasks.cockpit import desk, queues, workers, workflows
from django_tasks.models import BulkOperation, IntervalSchedule, Limit, PeriodicTask
from django_tasks.task_admin import failing
from tests.admin.conftest import Browser
from tests.cockpit.site_rows import a_worker
from tests.databases import TestDatabase
from tests.rows import KNOWN, ago, failure, finished, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

#: A group of failures that nobody said anything of, and one that somebody acknowledged and muted.
NEW, ASIDE = (failures.Kind(KNOWN, name, "") for name in ("ValueError", "OSError"))
#: What is given with a change of a worker, besides a queue.
DESK = {"min": "1", "max": "2", "task_name": KNOWN, "soft": "1", "hard": "2"}
#: Where whoever may look may keep something of their own.
ONES_OWN = re.compile(r"/(task|taskresult)/views/$")


def patterns(given: Any, prefix: str = "/") -> Iterator[str]:
    for one in given:
        if hasattr(one, "url_patterns"):
            yield from patterns(one.url_patterns, prefix + str(one.pattern))
        else:
            yield prefix + str(one.pattern)


@pytest.fixture
def keys(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what there is: by the model, the key of a row that something can be done to."""
    monkeypatch.setattr(workers, "PATIENCE", 0.01)
    root, done = ids.new_id(), UUID(ids.new_id())
    [task] = saved([waiting(queue="mail", root_id=root, due_at=ago(-600))])
    [result, _known] = saved([failure(queue="mail", root_id=root), failure(exception="OSError: disk full")])
    failures.acknowledge(ASIDE, "anna")
    failures.mute(ASIDE, "anna")
    saved([finished(id=done, root_id=done)])
    schedule = IntervalSchedule.objects.create(every=1, period="hours")
    on, off = (
        PeriodicTask.objects.create(name=name, task=KNOWN, args="[1]", interval=schedule, enabled=enabled)
        for name, enabled in (("on", True), ("off", False))
    )
    limits.pause("queue", "images", by="anna")
    limits.pause("task", "tests.app.tasks.noop", by="anna")
    somebody = User.objects.create_superuser("somebody")
    told = {"action": "cancel", "user_id": str(somebody.pk), "user_name": "somebody", "created_at": ago(0)}
    begun, stopped = (BulkOperation.objects.create(**told, state=state) for state in ("waiting", "aborted"))
    return {
        "task": task.pk, "taskresult": result.pk, "worker": a_worker("w1").pk,
        "lost": a_worker("w2", seen=900.0).pk, "periodictask": on.pk, "off": off.pk,
        "limit": limits.change("queue", "mail", rate="1/s").pk, "images": Limit.objects.get(name="images").pk,
        "bulkoperation": begun.pk, "stopped": stopped.pk, "overview": "1", "queue": "mail", "paused": "images",
        "tasktype": KNOWN, "noop": "tests.app.tasks.noop", "workflow": root, "done": done, "health": "1",
    }  # fmt: skip


def addresses(keys: dict[str, Any]) -> list[str]:
    """Return every address of the admin's pages of ours."""
    found = []
    for pattern in patterns(get_resolver().url_patterns):
        if pattern.startswith("/admin/django_tasks/"):
            key = str(keys[pattern.split("/")[3]]).replace("_", "_5F")
            address = re.sub(r"<(path:object_id|int:pk)>", key, pattern).replace("<str:what>", "arguments")
            assert "<" not in address, pattern
            found.append(address)
    assert len(found) > 60
    return found


def everything() -> dict[str, list[Any]]:
    """Return all that is stored of us, and the history of it."""
    models: list[Any] = [one for one in apps.get_app_config("django_tasks").get_models() if one._meta.managed]
    return {one.__name__: list(one._default_manager.order_by("pk").values()) for one in (*models, LogEntry)}


def allowed(*without: str) -> Any:
    """Return all permissions on us but these."""
    return Permission.objects.filter(content_type__app_label="django_tasks").exclude(codename__in=without)


def answers(client: Client, address: str, keys: dict[str, Any]) -> Iterator[Any]:
    """Post to an address whatever is an order anywhere."""
    model = address.split("/")[3]
    named = admin.site.get_model_admin(apps.get_model("django_tasks", model)).actions or ()
    names = {one if isinstance(one, str) else one.__name__ for one in named}
    names |= {"pause", "resume", "purge", "move", "send", *workflows.ORDERS, *failing.ORDERS}
    names |= desk.QUESTIONS.keys() | desk.CHANGES.keys() if address.endswith("/desk/") else set()
    for name in sorted(names):
        choices: list[dict[str, str]] = [{"_selected_action": str(keys[model])}]
        if address.endswith(f"/{model}/"):
            choices.append({"select_across": "1"})
        for chosen in choices:
            yield client.post(
                address,
                {
                    "action": name, **chosen, "post": "yes", "sure": "1", "name": "mail", "to": "other",
                    "queue": "other", "signal": "SIGTERM", "eta_0": "2099-01-01", "eta_1": "12:00:00",
                    "arg-x": "1", "args": "[2]", "group": ASIDE.key if name.startswith("un") else NEW.key,
                    "kwargs": "{}", "rate": "9/s", "_save": "1", "_run": "1", **DESK,
                },
            )  # fmt: skip


def test_nothing_is_shown_to_a_stranger_or_changed_by_one(keys: dict[str, Any]) -> None:
    before = everything()
    for address in addresses(keys):
        for answer in (Client().get(address), Client().post(address, {"action": "cancel", "post": "yes"})):
            is_sent_away = answer.status_code == 302 and answer.headers["Location"].startswith(
                ("/admin/login/", address)
            )
            assert is_sent_away or answer.status_code in (401, 403, 405), (address, answer.status_code)
    assert before == everything()


def test_nothing_is_shown_to_who_has_no_permission_or_changed_by_them(keys: dict[str, Any], browser: Browser) -> None:
    """S8."""
    nobody = browser()
    before = everything()
    for address in addresses(keys):
        for answer in (nobody.get(address), *answers(nobody, address, keys)):
            is_sent_on = answer.status_code == 302 and answer.headers["Location"].startswith(address)
            is_sent_on = is_sent_on or answer.headers.get("Location") == "/admin/"  # as from what does not exist
            assert is_sent_on or answer.status_code in (401, 403, 404, 405), (address, answer.status_code)
    assert before == everything()


def test_who_may_only_look_changes_nothing(keys: dict[str, Any], browser: Browser) -> None:
    """S8."""
    names = Permission.objects.filter(content_type__app_label="django_tasks", codename__startswith="view_")
    reader = browser(*names.values_list("codename", flat=True), username="reader")
    before = everything()
    for address in addresses(keys):
        if not ONES_OWN.search(address):
            for answer in answers(reader, address, keys):
                assert answer.status_code < 500, address
            assert before == everything(), address


def test_nothing_is_changed_while_it_is_read_only(keys: dict[str, Any], root: Client, settings: Any) -> None:
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_READ_ONLY": True}
    before = everything()
    for address in addresses(keys):
        if not ONES_OWN.search(address) and not address.endswith("/abort/"):
            for answer in answers(root, address, keys):
                assert answer.status_code < 500, address
            assert before == everything(), address


def test_a_form_of_another_site_is_refused_everywhere(keys: dict[str, Any], root: Client) -> None:
    """S10."""
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = root.cookies
    before = everything()
    for address in addresses(keys):
        for answer in answers(strict, address, keys):
            assert answer.status_code == 403, address
    assert before == everything()


# What may be done by whom ---------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """One thing that somebody may do, with these permissions."""

    model: str
    #: Its row among the keys, and the page of it that is posted to; ``""``: the list.
    row: str
    page: str
    order: dict[str, str]
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        return "-".join((self.model, self.order.get("action") or self.page))

    def post(self, client: Client, keys: dict[str, Any]) -> None:
        key = str(keys[self.row])
        place = f"{key.replace('_', '_5F')}/{self.page}/" if self.page else ""
        place = "failures/" if self.page == "failures" else place
        chosen = {} if self.page else {"_selected_action": key}
        client.post(f"/admin/django_tasks/{self.model}/{place}", {**chosen, "post": "yes", **self.order})


TOLD = {
    "terminate": {"signal": "SIGTERM"},
    "move": {"queue": "other"},
    "postpone": {"eta_0": "2099-01-01", "eta_1": "12:00:00"},
    "purge": {"name": "mail"},
}
#: What is needed beyond a look.
CASES = [
    *(
        Case(str(one.model._meta.model_name), str(one.model._meta.model_name), "",
             {"action": one.name, **TOLD.get(one.name, {})}, (one.permission,))
        for one in actions.ACTIONS
    ),
    Case("task", "task", "edit", {"args": "[5]", "kwargs": "{}"}, ("enqueue_task", "view_payload")),
    Case("taskresult", "taskresult", "edit", {"args": "[5]", "kwargs": "{}"},
         ("enqueue_task", "retry_taskresult", "view_payload")),
    *(Case("taskresult", "taskresult", "failures", {"action": name, "group": kind.key}, ("acknowledge_failure",))
      for name, kind in (("acknowledge", NEW), ("mute", NEW), ("unacknowledge", ASIDE), ("unmute", ASIDE))),
    *(Case("worker", "worker", "", {"action": name}, ("control_worker",)) for name in workers.ORDERS),
    Case("worker", "lost", "", {"action": "forget_selected"}, ("control_worker",)),
    *(Case("worker", "worker", "desk", {"action": name, "queue": "mail", **DESK}, ("control_worker",))
      for name in (*desk.QUESTIONS, *desk.CHANGES)),
    Case("queue", "queue", "change", {"action": "pause"}, ("pause_limit",)),
    Case("queue", "paused", "change", {"action": "resume"}, ("pause_limit",)),
    Case("queue", "queue", "change", {"action": "purge", "name": "mail"}, ("purge_queue",)),
    Case("queue", "queue", "change", {"action": "move", "to": "other", "sure": "1"}, ("move_queue",)),
    Case("tasktype", "tasktype", "change", {"action": "send", "arg-x": "1"}, ("enqueue_task",)),
    Case("tasktype", "tasktype", "change", {"action": "pause"}, ("pause_limit",)),
    Case("tasktype", "noop", "change", {"action": "resume"}, ("pause_limit",)),
    Case("workflow", "workflow", "change", {"action": "retry"}, ("retry_taskresult",)),
    Case("workflow", "workflow", "change", {"action": "cancel"}, ("cancel_task",)),
    Case("workflow", "done", "change", {"action": "again"}, ("retry_taskresult",)),
    Case("limit", "limit", "", {"action": "pause_selected"}, ("pause_limit",)),
    Case("limit", "images", "", {"action": "resume_selected"}, ("pause_limit",)),
    Case("limit", "limit", "change", {"rate": "9/s", "_save": "1"}, ("change_limit",)),
    Case("limit", "limit", "delete", {}, ("delete_limit",)),
    Case("periodictask", "periodictask", "", {"action": "disable_selected"}, ("change_periodictask",)),
    Case("periodictask", "off", "", {"action": "enable_selected"}, ("change_periodictask",)),
    Case("periodictask", "periodictask", "", {"action": "run_selected"}, ("run_periodictask",)),
    Case("periodictask", "periodictask", "", {"action": "duplicate_selected"}, ("add_periodictask",)),
    Case("periodictask", "periodictask", "delete", {}, ("delete_periodictask",)),
    Case("bulkoperation", "bulkoperation", "abort", {}, ("cancel_task",)),
    Case("bulkoperation", "bulkoperation", "work", {}, ("cancel_task",)),
    Case("bulkoperation", "stopped", "resume", {}, ("cancel_task",)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_thing_can_be_done_by_who_may_and_by_nobody_else(
    case: Case, keys: dict[str, Any], browser: Browser
) -> None:
    """S8: all other permissions together are not enough, and those that are needed are."""
    before = everything()
    for needed in case.needs:
        other = browser(*allowed(needed).values_list("codename", flat=True), username=f"all-but-{needed}")
        case.post(other, keys)
        assert before == everything(), f"without {needed}"
    case.post(browser(f"view_{case.model}", *case.needs, username="who-may"), keys)
    assert before != everything()


def test_no_order_is_without_a_case() -> None:
    known = {(case.model, case.order.get("action", "")) for case in CASES}
    for model, model_admin in admin.site._registry.items():
        if model._meta.app_label == "django_tasks":
            for one in model_admin.actions or ():
                name = one if isinstance(one, str) else one.__name__
                assert (model._meta.model_name, name) in known, "an action of the admin"
    pages = [("workflow", name) for name in workflows.ORDERS]
    pages += [
        ("queue", name) for name in queues.QueueAdmin(apps.get_model("django_tasks.Queue"), admin.site)._actions()
    ]
    for page in (*pages, *(("taskresult", name) for name in failing.ORDERS)):
        assert page in known
