"""What people are asked for before something is done."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.widgets import AdminSplitDateTime
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..actions import Action
from ..conf import PRIORITIES
from ..moments import LAST_YEAR
from ..routing import validate_queue


class AcrossForm(ActionForm):
    """The choice of an action, for the chosen rows or for all that match, with and without JavaScript."""

    select_across = forms.BooleanField(
        label=gettext_lazy("All that match"), required=False, initial=False, widget=forms.CheckboxInput
    )


class ParametersForm(forms.Form):
    """What an action has to be told. It is shown with the question, and most actions need nothing."""

    queue = forms.CharField(label=gettext_lazy("Queue"), required=False, max_length=64)
    priority = forms.IntegerField(
        label=gettext_lazy("Priority"),
        required=False,
        min_value=PRIORITIES[0],
        max_value=PRIORITIES[-1],
        help_text=gettext_lazy("From -100 to 100; higher runs first. Empty: it stays as it is."),
    )
    eta = forms.SplitDateTimeField(label=gettext_lazy("Not before"), widget=AdminSplitDateTime())
    signal = forms.ChoiceField(
        label=gettext_lazy("Signal"),
        choices=(
            ("SIGTERM", gettext_lazy("SIGTERM: the task may clean up")),
            ("SIGKILL", gettext_lazy("SIGKILL: at once, whatever it does")),
        ),
    )

    def __init__(self, action: Action, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in [name for name in self.fields if name not in action.asks]:
            del self.fields[name]
        if "queue" in self.fields:
            self.fields["queue"].help_text = _("Empty: it stays where it is.")

    def clean_queue(self) -> str:
        """Return the queue. Raises ``ValidationError`` for a name that cannot be."""
        queue: str = self.cleaned_data["queue"]
        try:
            return validate_queue(queue) if queue else ""
        except ValueError as error:
            raise ValidationError(str(error)) from error

    def clean_eta(self) -> datetime:
        """Return the moment. Raises ``ValidationError`` for one at the end of the calendar."""
        eta: datetime = self.cleaned_data["eta"]
        if eta.year > LAST_YEAR:
            raise ValidationError(_("Name a moment before the year %s.") % (LAST_YEAR + 1))
        return eta

    def clean(self) -> dict[str, Any]:
        """Return the values. Raises ``ValidationError`` when there is nothing to change."""
        values = super().clean() or {}
        moves = {"queue", "priority"} <= self.fields.keys()
        if moves and not self.errors and not values["queue"] and values["priority"] is None:
            raise ValidationError(_("Name a queue, a priority, or both."))
        return values

    def parameters(self) -> dict[str, Any]:
        """Return what the action is told, as JSON holds it."""
        values = {name: value for name, value in self.cleaned_data.items() if value not in (None, "")}
        if "eta" in values:
            moment = values["eta"]
            values["eta"] = (timezone.make_aware(moment) if timezone.is_naive(moment) else moment).isoformat()
        return values
