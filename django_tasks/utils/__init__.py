"""Small things that belong to no other module."""

from __future__ import annotations

from ..clash import ensure_ours

# PyPI's django-tasks has a utils.py, for which Python takes this package: its imports would fail for no clear reason.
ensure_ours()
