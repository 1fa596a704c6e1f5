"""Sending a task once more with other arguments: a form of JSON, checked as a call would be.

Secrets are shown as anywhere, hidden; where a hidden value is left as it is, the stored one is sent. If nothing is
changed, the stored text itself is sent, to the byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import access, audit, client, display, operations, typed_json
from ..actions import REASONS
from ..exceptions import SerializationError, TaskError
from ..models import Call, TaskResult
from ..redaction import REDACTED, hidden_places, hide, is_secret, revealed, sensitive_names, taken_in
from ..registry import tasks
from ..revival import was_not_run

if TYPE_CHECKING:
    from .calls import CallAdmin


class ArgumentsForm(forms.Form):
    """Arguments as JSON; what JSON has no word for is written as in the database, ``{"__type__": …}``."""

    args = forms.CharField(label=gettext_lazy("Positional arguments"), widget=forms.Textarea, strip=False)
    kwargs = forms.CharField(label=gettext_lazy("Named arguments"), widget=forms.Textarea, strip=False)

    def __init__(self, call: Call, stored: tuple[Any, Any], data: Any = None) -> None:
        self._call = call
        self._stored = stored
        options = display.options_of(call)
        places = hidden_places(call.name, len(stored[0]), options, taken=taken_in(options))
        sensitive = sensitive_names(call.name, options)
        self._secret = {"args": places, "kwargs": {key for key in stored[1] if key in sensitive or is_secret(key)}}
        #: What is sensitive is kept no more: it has to be given anew.
        self._is_redacted = call.encoding == REDACTED
        args = [display.HIDDEN if at in places else value for at, value in enumerate(stored[0])]
        kwargs = {key: display.HIDDEN if key in self._secret["kwargs"] else value for key, value in stored[1].items()}
        self._shown = {"args": _editable(args), "kwargs": _editable(kwargs)}
        super().__init__(data, initial=self._shown)

    def clean_args(self) -> list[Any]:
        """Return the list. Raises ``ValidationError`` with line and column of what is wrong."""
        return self._parse("args", list, self._stored[0])  # type: ignore[no-any-return]

    def clean_kwargs(self) -> dict[str, Any]:
        """Return the object. Raises ``ValidationError`` with line and column of what is wrong."""
        return self._parse("kwargs", dict, self._stored[1])  # type: ignore[no-any-return]

    def _parse(self, name: str, kind: type, stored: Any) -> Any:
        text = self.cleaned_data[name]
        try:
            value = json.loads(text)
            typed_json.check_depth(value)
        except (ValueError, RecursionError, SerializationError) as error:
            raise ValidationError(_("This is no JSON: %s") % error) from error
        if not isinstance(value, kind):
            wanted = _("a list, such as [1, 2]") if kind is list else _('an object, such as {"key": 1}')
            raise ValidationError(_("This has to be %s.") % wanted)
        try:
            restored = typed_json.untag(revealed(value, typed_json.tag(stored)))
        except (SerializationError, ValueError, TypeError) as error:
            raise ValidationError(str(error)) from error
        for at, each in list(enumerate(restored) if kind is list else restored.items()):
            if each == display.HIDDEN and at in self._secret[name]:
                if self._is_redacted and stored[at] == display.HIDDEN:
                    label = at if kind is dict else _("Positional argument %s") % (at + 1)
                    raise ValidationError(_("%s is kept no more since the task succeeded: give it anew.") % label)
                restored[at] = stored[at]
        return restored

    def clean(self) -> dict[str, Any]:
        """Return both. Raises ``ValidationError`` for what the task would not take."""
        values = super().clean() or {}
        if self.errors:
            return values
        task = tasks.get(self._call.name)
        checked = getattr(task, "_arguments", None)
        models = getattr(task, "_models", None)
        try:
            if checked is not None:
                checked.check(values["args"], values["kwargs"])
            if models is not None:
                models.sent(values["args"], values["kwargs"])
            self.edit = self._made(values, task)
        except (TypeError, ValueError, TaskError) as error:
            raise ValidationError(str(error)) from error
        return values

    def cleaned_text(self, name: str) -> str:
        """Return what was typed, its lines ended as here."""
        return str(self.data.get(name, "")).replace("\r\n", "\n")

    def _made(self, values: Mapping[str, Any], task: Any) -> operations.Edit:
        args, kwargs = values["args"], values["kwargs"]
        # A browser sends other ends of lines than it was given.
        if not self._is_redacted and all(self.cleaned_text(name) == text for name, text in self._shown.items()):
            return operations.Edit(self._call.encoding, self._call.body, args, kwargs)
        serializer, _plus, compression = ("" if self._is_redacted else self._call.encoding).partition("+")
        encoding, body = client.encode(args, kwargs, serializer or "json", compression or None, task, self._call.name)
        return operations.Edit(encoding, body, args, kwargs)


def edit_view(admin: CallAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
    """Show the form, or send what it says."""
    call = admin.get_object(request, object_id)
    if call is None:
        raise Http404
    if not (admin.has_view_permission(request, call) and admin.sees_payload(request)):
        raise PermissionDenied
    if not admin.may(request, "enqueue_task") or (
        isinstance(call, TaskResult) and not admin.may(request, "retry_taskresult")
    ):
        raise PermissionDenied
    problem, stored = _stored(call)
    form = ArgumentsForm(call, stored, request.POST if request.method == "POST" else None) if stored else None
    if form is not None and request.method == "POST" and form.is_valid():
        copy, reason = _send(call, form.edit, access.narrowing(request))
        if copy:
            audit.record(request.user, [call], {str(call.pk): _("Sent with edited arguments as %s") % copy})
            url = reverse("admin:django_tasks_task_change", args=(copy,), current_app=admin.admin_site.name)
            admin.message_user(request, format_html('{} <a href="{}">{}</a>', _("Sent again as"), url, copy))
        else:
            admin.message_user(request, _("Not sent, because %s.") % REASONS[reason], messages.WARNING)
        return HttpResponseRedirect(admin.page_of(call.pk))
    context = {
        **admin.admin_site.each_context(request),
        "title": _("Send with edited arguments"),
        "original": call,
        "form": form,
        "problem": problem,
        "signature": _signature(call.name),
        "page": admin.page_of(call.pk),
        "opts": admin.opts,
        "media": admin.media,
    }
    request.current_app = admin.admin_site.name
    return TemplateResponse(request, "admin/django_tasks/edit.html", context)


def _send(call: Call, edit: operations.Edit, narrow: access.Narrow | None) -> tuple[str, str]:
    """Send a copy with these arguments; return its id, else ``""`` and the key of the reason in :data:`REASONS`."""
    key = str(call.pk)
    if isinstance(call, TaskResult):
        done = operations.retry([key], {key: edit}, narrow=narrow)
        return done.copies.get(key, ""), "hidden" if done.hidden else "queued"
    duplicated = operations.duplicate([key], {key: edit})
    return duplicated.changed.get(key, ""), duplicated.left.get(key, "")


def _stored(call: Call) -> tuple[str, tuple[list[Any], dict[str, Any]] | None]:
    """Return the stored arguments, or why they cannot be edited."""
    if isinstance(call, TaskResult) and was_not_run(call):
        return _("It was not run, because a task before it failed: run that one again."), None
    if {"argsrepr", "kwargsrepr"} & display.options_of(call).keys():
        return _("Its sender does not want its arguments to be shown."), None
    try:
        value = display.decode(call.body, call.encoding)
    except display.Unreadable as reason:
        return str(reason), None
    if not (isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[1], dict)):
        return _("These are no arguments of a call."), None
    return "", (list(value[0]), value[1])


def _signature(name: str) -> str:
    signature = getattr(getattr(tasks.get(name), "_arguments", None), "signature", None)
    return f"{name}{signature}" if signature is not None else ""


def _editable(value: Any) -> str:
    text = json.dumps(hidden := hide(typed_json.tag(value)), indent=2, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a character
        return json.dumps(hidden, indent=2)
    return text
