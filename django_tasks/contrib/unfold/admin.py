"""Registers our pages on django-unfold's classes, whose templates and widgets they then have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from django import forms
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.widgets import AdminSplitDateTime
from django.http import HttpRequest
from unfold import widgets
from unfold.admin import ModelAdmin
from unfold.forms import ActionForm

import django_tasks.admin  # noqa: F401 - what stands there is registered on the default site by now

#: What Unfold draws in place of a field of a form that we declare; fields of models it knows how to draw itself.
WIDGETS: Final[Mapping[type[forms.Widget], type[forms.Widget]]] = {
    forms.TextInput: widgets.UnfoldAdminTextInputWidget,
    forms.NumberInput: widgets.UnfoldAdminIntegerFieldWidget,
    forms.Textarea: widgets.UnfoldAdminTextareaWidget,
    forms.Select: widgets.UnfoldAdminSelectWidget,
    forms.RadioSelect: widgets.UnfoldAdminRadioSelectWidget,
    AdminSplitDateTime: widgets.UnfoldAdminSplitDateTimeWidget,
}


class InUnfold:
    """What any page of ours needs beside Unfold's own."""

    class Media:
        css: ClassVar = {"all": ("django_tasks/admin.css", "django_tasks/unfold.css")}

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        form = super().get_form(request, obj, change, **options)  # type: ignore[misc] # of the class beside it
        return type(form.__name__, (DrawnByUnfold, form), {})


class DrawnByUnfold:
    """A form whose fields look as Unfold draws them."""

    fields: dict[str, forms.Field]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for field in self.fields.values():
            drawn = WIDGETS.get(type(field.widget))
            if drawn is not None:
                given = field.widget
                field.widget = drawn(attrs={**given.attrs}) if given.attrs else drawn()
                field.widget.is_required = given.is_required
                if isinstance(given, forms.widgets.ChoiceWidget):
                    field.widget.choices = given.choices


def in_unfold(page: type[admin.ModelAdmin[Any]]) -> type[ModelAdmin]:
    """Return the same page on Unfold's class."""
    form = type("ActionForm", (ActionForm, page.action_form), {})
    own = {"__module__": __name__, "action_form": form, "action_checkbox": ModelAdmin.action_checkbox}
    return type(page.__name__, (InUnfold, page, ModelAdmin), own)


def register_all(site: admin.AdminSite) -> None:
    """Register our pages of ``site`` anew; on the default site that is done already. Those of a site of your own have
    to be there before: see ``django_tasks.admin.register_all``."""
    for model in apps.get_app_config("django_tasks").get_models():
        if site.is_registered(model):
            page = type(site.get_model_admin(model))
            if not issubclass(page, ModelAdmin):
                site.unregister(model)
                site.register(model, in_unfold(page))


register_all(admin.site)
