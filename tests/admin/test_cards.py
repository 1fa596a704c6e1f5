"""What a list needs to be read as cards: the heading of its column at each cell."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.utils import translation

from django_tasks import states
from tests.admin.pages import Tags, list_url, read
from tests.rows import finished, saved, waiting

pytestmark = pytest.mark.databases("sqlite")


def cells(page: str) -> list[tuple[str, str]]:
    """Return heading and classes of each cell of the list but the box that chooses the row."""
    found = [attrs for tag, attrs in Tags(page).seen if tag == "td" and "field-" in str(attrs.get("class"))]
    return [(str(attrs.get("data-label")), str(attrs["class"])) for attrs in found]


@pytest.mark.usefixtures("database")
def test_each_cell_names_its_column(root: Client) -> None:
    saved([finished(worker="w1@h")])
    page = cells(read(root, list_url("taskresult")))
    assert page[:2] == [("State", "field-shown_state"), ("Exception", "field-error djt-none")]
    assert ("Worker", "field-shown_worker") in page
    with translation.override("de"):
        german = cells(read(root, list_url("taskresult")))
    assert len(german) == len(page)


@pytest.mark.usefixtures("database")
def test_what_people_stored_is_no_cell(root: Client) -> None:
    text = '<td class="field-queue">'
    saved([waiting(name=text, queue=text[:60], state=states.PENDING)])
    page = read(root, list_url("task"))
    assert [label for label, _classes in cells(page)].count("Queue") == 1


@pytest.mark.parametrize("model", ["worker", "limit", "periodictask", "bulkoperation"])
def test_an_empty_list_stands(root: Client, model: str, database: Any) -> None:
    assert cells(read(root, list_url(model))) == []
