"""What a project adds to the pages: panels, links, templates, actions, releases; and the numbers for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, override_settings
from django.urls import reverse
from django.utils.html import format_html

from django_tasks import actions, bulk, extensions
from django_tasks.actions import Action, Done, register_action
from django_tasks.cockpit import board, overview
from django_tasks.conf import check_settings
from django_tasks.models import Task, TaskResult
from tests.admin.conftest import Browser
from tests.admin.pages import list_url, page_url, read, text_of
from tests.cockpit.site_rows import a_worker, fill
from tests.rows import ago, finished, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

URL = "/admin/django_tasks/overview/"
TOKEN = "a token of many letters"  # noqa: S105 - guards nothing
HERE = "tests.cockpit.test_extensions"


def given(**values: Any) -> Any:
    return override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, **values})


# Panels --------------------------------------------------------------------------------------------------------------


class Sales:
    """A panel as a project writes one."""

    title = "Sales"
    rendered: ClassVar[int] = 0
    seen: ClassVar[Any] = 1

    def render(self, request: Any) -> str:
        type(self).rendered += 1
        return format_html("<p>{} sold, says {}</p>", type(self).seen, request.user.get_username())

    def version(self) -> Any:
        return type(self).seen


class Broken:
    title = "Broken"

    def render(self, request: Any) -> str:
        raise LookupError("no such thing")

    def version(self) -> Any:
        return None


class Plain(Broken):
    title = "Plain"
    wide = True

    def render(self, request: Any) -> str:
        return "<b>text</b>"


def test_panels_stand_in_the_order_of_the_setting(root: Client) -> None:
    fill(minutes=2)
    everything = read(root, URL)
    assert everything.index("djt-cards") < everything.index("djt-charts") < everything.index("Next periodic runs")
    with given(ADMIN_PANELS=["periodic", f"{HERE}.Sales", "cards"]):
        overview.forget()
        page = read(root, URL)
        assert page.index("Next periodic runs") < page.index("<h2>Sales</h2>") < page.index("djt-cards")
        assert "djt-charts" not in page
        assert "Failing now" not in page


def test_a_panel_is_rendered_again_when_its_version_changes_and_for_another_person(
    browser: Browser, root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "_kept", {})  # somebody of the same id may have seen it in another test
    with given(ADMIN_PANELS=["cards", f"{HERE}.Sales"]):
        before = Sales.rendered
        answer = root.get(f"{URL}?fragment=1")
        etag = {"If-None-Match": answer.headers["ETag"]}
        assert root.get(f"{URL}?fragment=1", headers=etag).status_code == 304
        assert Sales.rendered == before + 1
        assert "1 sold, says view_overview" in read(browser("view_overview"), URL)
        Sales.seen = 2
        try:
            assert "2 sold" in root.get(f"{URL}?fragment=1", headers=etag).content.decode()
        finally:
            Sales.seen = 1


def test_a_panel_that_fails_takes_nothing_with_it_and_text_is_no_markup(
    root: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with given(ADMIN_PANELS=[f"{HERE}.Broken", f"{HERE}.Plain", "cards"]):
        page = read(root, URL)
    assert "This panel failed: LookupError." in page
    assert "no such thing" in caplog.text
    assert "&lt;b&gt;text&lt;/b&gt;" in page
    assert "djt-cards" in page


class Listing(Sales):
    """A panel whose version nothing can be kept by, with a link into the site."""

    title = "Listing"

    def render(self, request: Any) -> str:
        type(self).rendered += 1
        return format_html('<a href="{}">tasks</a>', reverse("admin:index", current_app=request.current_app))

    def version(self) -> Any:
        return ["a"]


def test_a_version_that_nothing_can_be_kept_by_takes_nothing_with_it(
    root: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with given(ADMIN_PANELS=[f"{HERE}.Listing", "cards"]):
        before = Listing.rendered
        assert "djt-cards" in read(root, URL)
        assert "<h2>Listing</h2>" in read(root, URL)
        assert Listing.rendered == before + 2, "at every look"
    assert "The panel tests.cockpit.test_extensions.Listing failed" in caplog.text


class Linked(Listing):
    title = "Linked"

    def version(self) -> Any:
        return 1


def test_a_panel_leads_into_the_site_on_which_it_is_seen(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "_kept", {})
    with given(ADMIN_PANELS=[f"{HERE}.Linked"]), override_settings(ROOT_URLCONF="tests.admin.two_sites"):
        for site in ("admin", "operations"):
            assert f'<a href="/{site}/">tasks</a>' in read(root, f"/{site}/django_tasks/overview/")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (["crads"], "has 'crads'; allowed: problems, cards, charts"),
        (["cards", "cards"], "twice"),
        ([f"{HERE}.given"], "allowed: a class with a title, render(request) and version()"),
        (["shop.panels.Gone"], "which cannot be imported"),
    ],
)
def test_what_is_no_panel_is_told_by_the_checks(value: list[str], said: str) -> None:
    with given(ADMIN_PANELS=value):
        assert [one for one in run_checks(tags=["django_tasks"]) if one.id == "django_tasks.E002" and said in one.msg]


# The page of a task --------------------------------------------------------------------------------------------------

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def link_of(task: str, argument: str, value: Any) -> str | None:
    if value == "evil":
        return "javascript:alert(1)"
    if value == "odd":
        raise LookupError
    return f"/shop/{task}/{value}/" if argument == "y" else None


def test_links_lead_to_other_systems(root: Client) -> None:
    links = {
        "Sentry": "https://sentry.example/?query={trace_id}",
        "Logs": "/logs?task={id}&name={name}",
        "Worker": "https://machines.example/{worker}",
    }
    options = json.dumps({"headers": {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}})
    [traced, plain] = saved([waiting(options=options, name="a b&c"), waiting()])
    with given(ADMIN_LINKS=links):
        page = read(root, page_url("task", traced.pk))
        assert f'<a href="https://sentry.example/?query={TRACE}" rel="noopener noreferrer">Sentry ↗</a>' in page
        assert f'<a href="/logs?task={traced.pk}&amp;name=a%20b%26c"' in page
        assert "machines.example" not in page  # nobody has run it
        page = read(root, page_url("task", plain.pk))
        assert "sentry.example" not in page
        assert "/logs?task=" in page
        [done] = saved([finished(worker="w1@web")])
        assert "https://machines.example/w1%40web" in read(root, page_url("taskresult", done.pk))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"Sentry": "https://sentry.example/?query={trace}"}, "Sentry has {trace}."),
        ({"Sentry": "javascript:alert(1)"}, "Sentry leads to 'javascript:alert(1)'."),
        ({"Sentry": "https://x/{id.__class__}"}, "Sentry has {id.__class__}."),
        ({"Sentry": "https://x/{"}, "Sentry: "),
        ({"": "https://x/"}, "allowed: a dict of labels and addresses"),
        (["https://x/"], "allowed: a dict of labels and addresses"),
    ],
)
def test_what_can_be_no_link_is_told(value: Any, said: str) -> None:
    with given(ADMIN_LINKS=value):
        assert [one for one in check_settings() if "ADMIN_LINKS" in one and said in one]


def test_an_argument_leads_to_its_object(root: Client, browser: Browser) -> None:
    [row] = saved([waiting(body="[[1, 1543], {}]")])
    with given(ADMIN_OBJECT_LINK=f"{HERE}.link_of"):
        page = read(root, page_url("task", row.pk))
        assert '<a href="/shop/tests.app.tasks.add/1543/">1543</a>' in page
        assert "/shop/" not in read(browser("view_task"), page_url("task", row.pk))
        saved([waiting(body='[[1, "evil"], {}]'), waiting(body='[[1, "odd"], {}]')])
        for other in Task.objects.exclude(pk=row.pk):
            assert "javascript" not in read(root, page_url("task", other.pk))
    with given(ADMIN_OBJECT_LINK="gone.function"):
        assert [one for one in run_checks(tags=["django_tasks"]) if "'gone.function', which cannot be" in one.msg]
    assert extensions.object_link("a", "y", "5") == ""


def test_templates_of_the_project_are_shown_on_the_page_of_a_task(root: Client, tmp_path: Path) -> None:
    folder = tmp_path / "django_tasks"
    (folder / "types").mkdir(parents=True)
    (folder / "task_detail_extra.html").write_text("<p>all: {{ task.queue }}</p>")
    (folder / "types/tests.app.tasks.add.html").write_text("<p>only add: {{ task.name }}, {{ full }}</p>")
    [row] = saved([waiting(queue="<b>")])
    [other] = saved([finished(name="../task_detail_extra")])
    before: dict[str, Any] = settings.TEMPLATES[0]
    with override_settings(TEMPLATES=[{**before, "DIRS": [tmp_path, *before.get("DIRS", [])]}]):
        page = read(root, page_url("task", row.pk))
        assert "<p>all: &lt;b&gt;</p>" in page
        assert "<p>only add: tests.app.tasks.add, True</p>" in page
        assert read(root, page_url("taskresult", other.pk)).count("<p>all: default</p>") == 1


# Actions -------------------------------------------------------------------------------------------------------------


def refund(ids: Sequence[str], given: Mapping[str, Any]) -> Done:
    return Done(dict.fromkeys(ids[:1], "Refunded"), dict.fromkeys(ids[1:], "the order is too old"))


def an_action(**fields: Any) -> Action:
    return Action(
        **{
            "name": "refund", "model": TaskResult, "permission": "auth.change_user", "label": "Refund",
            "of_many": "Refund selected", "answer": "Yes, refund", "consequence": "Money goes back.", "run": refund,
            **fields,
        }
    )  # fmt: skip


@pytest.fixture
def refunding() -> Iterator[Action]:
    action = register_action(an_action())
    yield action
    del actions.BY_NAME[action.name]


def test_an_action_of_the_project_is_offered_asked_done_and_written_down(refunding: Action, root: Client) -> None:
    rows = saved([finished(), finished()])
    assert '<option value="refund">Refund selected</option>' in read(root, list_url("taskresult"))
    assert re.search(r"<button [^>]*>Refund</button>", read(root, page_url("taskresult", rows[0].pk)))
    assert "refund" not in read(root, list_url("task"))
    chosen = {"action": "refund", "_selected_action": [str(row.pk) for row in rows]}
    asked = root.post(list_url("taskresult"), chosen).content.decode()
    assert "Money goes back." in asked
    done = text_of(root.post(list_url("taskresult"), {**chosen, "post": "yes"}, follow=True).content.decode())
    assert "Refunded: 1." in done
    assert "Left alone, because the order is too old: 1." in done


def test_it_needs_its_permission_and_is_done_in_the_background_too(
    refunding: Action, browser: Browser, root: Client
) -> None:
    saved([finished(), finished()])
    may_not, may = browser("view_taskresult"), browser("view_taskresult", "change_user")
    assert "refund" not in read(may_not, list_url("taskresult"))
    assert "refund" in read(may, list_url("taskresult"))
    across = {"action": "refund", "select_across": "1", "post": "yes"}
    assert may_not.post(list_url("taskresult"), across).status_code == 403
    answer = may.post(list_url("taskresult"), across)
    operation = bulk.work(int(answer.headers["Location"].split("/")[-3]))
    assert operation is not None
    assert operation.changed == 1
    assert "the order is too old" in text_of(read(root, page_url("bulkoperation", operation.pk)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "Refund!"}, "allowed: 1 to 32 of the characters a-z 0-9 _"),
        ({"name": "retry"}, "There is an action 'retry' already"),
        ({"model": Action}, "allowed: Task, TaskResult"),
        ({"asks": ("reason",)}, "asks for 'reason'; allowed: eta, priority, queue, signal"),
    ],
)
def test_what_can_be_no_action_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="action") as caught:
        register_action(an_action(**fields))
    assert said in str(caught.value)


# Releases ------------------------------------------------------------------------------------------------------------


def test_charts_show_where_workers_began_to_run_another_release(root: Client) -> None:
    fill(minutes=60)
    a_worker("old", version="1.0 aaaa111", started_at=ago(50 * 60))
    a_worker("new", version="1.0 bbbb222", started_at=ago(20 * 60))
    a_worker("another", version="1.0 bbbb222", started_at=ago(10 * 60))
    page = read(root, URL)
    assert page.count('<g class="djt-mark"><title>bbbb222</title>') == 4
    for path, charts in (("queue/mail/change/", 4), ("tasktype/tests.app.tasks.add/change/", 3)):
        page = read(root, f"/admin/django_tasks/{path}")
        assert page.count('<g class="djt-mark"><title>bbbb222</title>') == charts
    assert "(bbbb222)</th>" in page  # the table says so, too


@pytest.mark.parametrize("value", ["", " a", "x" * 41, 5, "a\n"])
def test_a_release_has_a_short_name(value: Any) -> None:
    with given(RELEASE=value):
        assert [one for one in check_settings() if "RELEASE" in one and "1 to 40 printable characters" in one]


# For programs --------------------------------------------------------------------------------------------------------


def test_the_numbers_are_given_as_json_to_who_has_the_token_or_may_see_the_overview(browser: Browser) -> None:
    fill(minutes=3)
    url = f"{URL}overview.json"
    assert browser("view_worker").get(url).status_code == 401
    assert Client().get(url).headers["WWW-Authenticate"] == 'Bearer realm="overview"'
    told = browser("view_overview").get(f"{url}?span=6h").json()
    assert told["span"] == "6h"
    assert told["total"]["succeeded"] > 0
    assert {"name": "images", "paused": True}.items() <= next(
        q for q in told["queues"] if q["name"] == "images"
    ).items()
    assert {one["name"] for one in told["workers"]} == {"w1@web1", "w2@web1", "w3@db1"}
    assert told["failures"][0]["exception"] == "ValueError"
    with given(METRICS_TOKEN=TOKEN):
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert Client().get(url, headers=bearer).json()["span"] == "1h"
        assert Client().get(url, headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_a_panel_that_is_none_is_an_error_where_it_is_used() -> None:
    with pytest.raises(ImproperlyConfigured, match="allowed: a class"):
        extensions.panel(f"{HERE}.given")
