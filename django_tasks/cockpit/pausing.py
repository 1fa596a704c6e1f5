"""What people say when they pause something: why, and for how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import limits

#: The longest pause that ends by itself, in minutes: a year.
LONGEST: Final = 366 * 24 * 60


class PauseForm(forms.Form):
    """Why, and for how long."""

    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=255, required=False)
    minutes = forms.IntegerField(
        label=gettext_lazy("For how many minutes (empty: until resumed)"),
        min_value=1,
        max_value=LONGEST,
        required=False,
    )

    def pause(self, request: HttpRequest, kind: str, name: str) -> str:
        """Pause a queue or a task as this valid form says; return what was done, in a sentence."""
        minutes, reason = self.cleaned_data["minutes"], self.cleaned_data["reason"]
        until = timedelta(minutes=minutes) if minutes else None
        limits.pause(kind, name, by=request.user.get_username(), reason=reason, until=until)
        text = _("Paused for %s minutes.") % minutes if minutes else _("Paused.")
        return f"{text} {reason}".strip()
