"""What people keep of lists: their filters, search and columns under a name."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class SavedView(models.Model):
    """A view of the list of tasks or of results, for the person who saved it."""

    #: The id of the user, who may be in another database.
    user_id = models.CharField(_("person"), max_length=64)
    #: The model whose list it is.
    page = models.CharField(_("list"), max_length=16)
    name = models.CharField(_("name"), max_length=64)
    #: What stands behind the question mark of its address.
    query = models.TextField(_("query"), blank=True, default="")

    class Meta:
        verbose_name = _("saved view")
        verbose_name_plural = _("saved views")
        ordering = ("name",)
        constraints = (models.UniqueConstraint(fields=["user_id", "page", "name"], name="djt_view_name"),)

    def __str__(self) -> str:
        return str(self.name)
