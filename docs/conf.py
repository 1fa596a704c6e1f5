"""Sphinx reads this: MyST pages, Furo, no warning tolerated (``make docs``)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import django

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django_tasks import __version__  # noqa: E402 - the path comes first

project = "django-workbeat"
author = "the django-workbeat contributors"
project_copyright = f"2026, {author}"
release = __version__
version = ".".join(release.split(".")[:2])

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "fieldlist", "substitution"]
myst_heading_anchors = 3
myst_substitutions = {"version": release}

autodoc_member_order = "bysource"
autodoc_typehints = "description"

# The inventories are fetched from the net, which a build on one's own machine does not need.
if os.environ.get("READTHEDOCS") or os.environ.get("DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "django": ("https://docs.djangoproject.com/en/stable/", "https://docs.djangoproject.com/en/stable/_objects/"),
        "celery": ("https://docs.celeryq.dev/en/stable/", None),
    }

# Prompts and output stay where they are when a block is copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"django-workbeat {version}"
