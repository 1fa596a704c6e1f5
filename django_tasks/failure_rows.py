"""The table of what people said of failures: seen, or not to be told of for a while."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .fields import NameField, UTCDateTimeField


class FailureMark(models.Model):
    """A group of failures that somebody acknowledged or muted."""

    #: A hash of the three that make a group: one index, short enough for every database.
    key = NameField(_("key"), max_length=40, primary_key=True)
    name = NameField(_("task"), max_length=255)
    #: The class of the exception; empty if there is none.
    exception = models.CharField(_("exception"), max_length=255, blank=True, default="")
    #: Where in the project it came up, as ``shop/mail.py in send``; empty if that is not known.
    place = models.CharField(_("place"), max_length=255, blank=True, default="")
    #: What failed so until then is seen; NULL: nothing is.
    acknowledged_at = UTCDateTimeField(_("acknowledged"), null=True, blank=True)
    acknowledged_by = models.CharField(_("acknowledged by"), max_length=255, blank=True, default="")
    #: Nobody is told of it until then; NULL: everybody is.
    muted_until = UTCDateTimeField(_("muted until"), null=True, blank=True)
    muted_by = models.CharField(_("muted by"), max_length=255, blank=True, default="")

    class Meta:
        verbose_name = _("group of failures")
        verbose_name_plural = _("groups of failures")
        default_permissions = ()
        permissions = (("acknowledge_failure", "Can acknowledge and mute failures"),)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.exception, self.place)))
