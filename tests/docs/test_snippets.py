"""The code blocks of README.md and docs/ do what the page says; CONTRIBUTING.md tells the rules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.databases import TestDatabase
from tests.docs.blocks import blocks_of
from tests.docs.project import ROOT, Project, SnippetFailed

PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if page.exists()]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if any(blocks_of(page))]
)
def test_a_page_does_what_it_says(
    page: Path, database: TestDatabase, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    more = {"REDIS_URL": request.getfixturevalue("redis_url")} if "REDIS_URL" in page.read_text() else {}
    run(page, database, tmp_path, more)


@pytest.mark.databases("sqlite")
def test_a_page_is_a_project_with_files_settings_python_and_commands(database: TestDatabase, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        """
```python
# mysite/settings.py
INSTALLED_APPS = [
    ...,
    "shop",
]
SHOP = "corner"
```
1. In a list:
   ```{code-block} python
   :caption: shop/models.py

   from django.db import models

   class Order(models.Model):
       number = models.IntegerField()
   ```

```python
from django.conf import settings
from shop.models import Order

order = await Order.objects.acreate(number=7)
```
```pycon
>>> settings.SHOP, order.number
('corner', 7)
```
```console
$ make test
$ pip install "django-workbeat[postgres,msgpack]"
$ python manage.py check --tag models
System check identified no issues...
```
<!-- not run: needs a mail server -->
```python
raise RuntimeError
```
"""
    )
    run(page, database, tmp_path)


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("```python\nvalue = 1\nvalue / 0\n```", r'line 3: (?s:.*)page\.md", line 4(?s:.*)ZeroDivisionError'),
        ("```pycon\n>>> 1 + 1\n3\n```", "Expected:\n    3\nGot:\n    2"),
        ("<!-- output varies: it is fast -->\n```pycon\n>>> 1 / 0\n3\n```", "ZeroDivisionError"),
        ("```python\n# tasks.py\n```", "name the file with its app's directory, as in # shop/tasks.py"),
        ("```console\n$ python manage.py nonsense\n```", "Unknown command: 'nonsense'"),
        ("```console\n$ python manage.py check\nall is lost\n```", "instead of\nall is lost"),
        ("```console\n$ make money\n```", "make money: no such target"),
        ("```console\n$ uv add 'django-workbeat[magic]'\n```", "no extra magic, there are postgres"),
        ("```console\n$ rm -rf /\n```", "cannot be run here"),
    ],
)
def test_a_block_that_fails_is_told_with_its_place(
    block: str, told: str, database: TestDatabase, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Look:\n{block}\n")
    with pytest.raises(SnippetFailed, match=told):
        run(page, database, tmp_path)


def run(page: Path, database: TestDatabase, tmp_path: Path, more: Mapping[str, str] = MappingProxyType({})) -> None:
    directory = tmp_path / "project"
    directory.mkdir()
    with Project(directory, page, {**database.environ(), **more}) as project:
        for block in blocks_of(page):
            project.run(block)
