"""Doing something to chosen rows: ask, with how many they are and what will happen, then do it and write it down.

Each action is offered in the list, for the chosen rows or for all that match, and on the page of a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from django.contrib import messages
from django.contrib.admin import helpers
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import get_language, ngettext
from django.utils.translation import gettext as _

from .. import access, actions, audit, bulk
from ..actions import REASONS, Action, Done
from ..changelists import PLACE, CallChangeList
from ..search import SearchError
from .forms import AcrossForm, ParametersForm
from .own_views import OwnViewsAdmin

#: Rows that can be chosen one by one; more are taken by "all that match".
MOST = 1_000


class AnyRow:
    """Stands for each row in what is drawn once for all."""

    pk: Final = "djt0pk"
    text: Final = "djt0text"

    def __str__(self) -> str:
        return self.text


def as_admin_action(action: Action) -> Callable[..., HttpResponse | None]:
    """Return an action as Django's admin takes it."""

    def act(modeladmin: ActingAdmin, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return modeladmin.act(request, queryset, action)

    act.__name__ = action.name
    act.short_description = action.of_many  # type: ignore[attr-defined]
    return act


class ActingAdmin(OwnViewsAdmin):
    """Rows to which something can be done."""

    action_form = AcrossForm

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: The box of a row with room for the row, by language.
        self._boxes: dict[str | None, str] = {}

    def action_checkbox(self, obj: Any) -> SafeString:
        # Drawn by its templates, the box of each row would take longer than the rest of it.
        language = get_language()
        box = self._boxes.get(language)
        if box is None:
            drawn = str(super().action_checkbox(AnyRow()))
            box = drawn.replace("{", "{{").replace("}", "}}").replace(AnyRow.pk, "{0}").replace(AnyRow.text, "{1}")
            self._boxes[language] = box
        return format_html(box, obj.pk, obj)

    @property
    def actions(self) -> list[Callable[..., HttpResponse | None]]:  # type: ignore[override]
        """What Django's admin offers; a project may have registered some."""
        return [as_admin_action(one) for one in actions.BY_NAME.values() if one.model is self.model]

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> Any:
        place = () if action_location is None else (action_location,)  # Django 6.1 asks for each place
        found = super().get_actions(request, *place)
        return {
            name: one
            for name, one in found.items()
            if (known := actions.BY_NAME.get(name)) is None or self.may(request, known.permission)
        }

    def buttons(self, request: HttpRequest) -> list[tuple[str, Any]]:
        """Return names and labels of what this person may do to a row."""
        mine = [one for one in actions.BY_NAME.values() if one.model is self.model]
        return [(one.name, one.label) for one in mine if self.may(request, one.permission)]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        action = actions.BY_NAME.get(_chosen_action(request))
        if action is not None and action.model is self.model and _is_across(request):
            # Django would insist on some row being chosen, too.
            if not (self.has_view_permission(request) and self.may(request, action.permission)):
                raise PermissionDenied
            return self.act_on_all(request, action)
        return super().changelist_view(request, extra_context)

    def act(self, request: HttpRequest, queryset: QuerySet[Any], action: Action) -> HttpResponse | None:
        """Do something to chosen rows, or ask whether to."""
        if len(request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)) > MOST:
            text = _(
                "An action takes %(most)s chosen rows at most. For more, narrow the list, and take all that match."
            )
            self.message_user(request, text % {"most": f"{MOST:,}"}, messages.ERROR)
            return None
        # Whatever else the form said: "all that match" is act_on_all()'s alone.
        chosen = queryset.filter(pk__in=request.POST.getlist(helpers.ACTION_CHECKBOX_NAME))
        rows = list(chosen.only("pk", "name", "custom_id", "state"))
        asked = request.POST.get("post") == "yes"
        form = ParametersForm(action, request.POST if asked else None)
        if not asked or not form.is_valid():
            return self._ask(request, action, form, count=len(rows), rows=rows)
        done = action.do([str(row.pk) for row in rows], form.parameters(), access.narrowing(request))
        audit.record(request.user, rows, done.said, deleted=action.deletes)
        self._tell(request, action, done)
        if request.POST.get("from") == "page" and len(rows) == 1 and not action.deletes:
            return HttpResponseRedirect(self.page_of(rows[0].pk))
        return None

    def act_on_all(self, request: HttpRequest, action: Action) -> HttpResponse:
        """Begin to do something to all that the list finds, or ask whether to."""
        try:
            listed = self.get_changelist_instance(request)
        except IncorrectLookupParameters:
            return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")
        asked = request.POST.get("post") == "yes"
        form = ParametersForm(action, request.POST if asked else None)
        if not isinstance(listed, CallChangeList):
            raise PermissionDenied
        if not asked or not form.is_valid():
            count = bulk.count(listed.selection, listed.queryset)
            return self._ask(request, action, form, count=count, rows=listed.result_list[:100], across=True)
        try:
            operation = bulk.begin(
                action,
                form.parameters(),
                search=listed.query,
                filters=listed.chosen_filters(),
                request=request,
            )
        except SearchError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        audit.record(request.user, [operation], {str(operation.pk): str(action.of_many)})
        return HttpResponseRedirect(
            reverse("admin:django_tasks_bulkoperation_change", args=(operation.pk,), current_app=self.admin_site.name)
        )

    def page_of(self, key: Any) -> str:
        """Return the address of the page of a row."""
        return reverse(
            f"admin:django_tasks_{self.opts.model_name}_change", args=(key,), current_app=self.admin_site.name
        )

    def _ask(
        self,
        request: HttpRequest,
        action: Action,
        form: ParametersForm,
        *,
        count: int | None,
        rows: Any,
        across: bool = False,
    ) -> TemplateResponse:
        """Return the page that says what an action would do, and to how many, and asks."""
        query = request.GET.copy()
        for name in PLACE:
            query.pop(name, None)
        if count is None:
            said = _("More rows than can be counted at once.")
        else:
            said = ngettext("%(count)s row.", "%(count)s rows.", count) % {"count": f"{count:,}"}
        context = {
            **self.admin_site.each_context(request),
            "title": action.of_many,
            "action": action,
            "form": form,
            "said": said,
            "rows": rows[:100],
            "more": count is None or count > 100,
            "across": across,
            "nothing": count == 0,
            "from": request.POST.get("from", ""),
            "query": query.urlencode(),
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "chosen": [] if across else [row.pk for row in rows],
            "opts": self.opts,
            "media": self.media,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/django_tasks/confirm.html", context)

    def _tell(self, request: HttpRequest, action: Action, done: Done) -> None:
        """Say what was done, and what was not and why."""
        for sentence, count in Counter(map(_kind_of, done.said.values())).items():
            self.message_user(request, f"{sentence}: {count:,}.", messages.SUCCESS)
        new = _new_tasks(action, done)
        if len(new) == 1:
            url = reverse("admin:django_tasks_task_change", args=(new[0],), current_app=self.admin_site.name)
            self.message_user(request, format_html('{} <a href="{}">{}</a>', _("The new task:"), url, new[0]))
        for reason, count in Counter(done.left.values()).items():
            text = _("Left alone, because %(reason)s: %(count)s.")
            self.message_user(
                request, text % {"reason": REASONS.get(reason, reason), "count": f"{count:,}"}, messages.WARNING
            )


def _new_tasks(action: Action, done: Done) -> list[str]:
    """Return the ids of the tasks that an action sent."""
    if action.name not in ("retry", "duplicate", "duplicate_task"):
        return []
    return [said.rpartition(" ")[2] for said in done.said.values()]


def _kind_of(sentence: str) -> str:
    """Return what sentences about different tasks have in common: all but an id at the end."""
    head, _space, last = sentence.rpartition(" ")
    return head if len(last) == 36 and last.count("-") == 4 else sentence


def _chosen_action(request: HttpRequest) -> str:
    given = request.POST.getlist("action") if request.method == "POST" else []
    index = request.POST.get("index", "0")
    return given[int(index)] if index.isdecimal() and len(index) < 4 and int(index) < len(given) else ""


def _is_across(request: HttpRequest) -> bool:
    return request.POST.get("select_across", "") in ("1", "on")
