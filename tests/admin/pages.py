"""Reading the admin's pages in tests."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any

from django.test import Client
from django.urls import reverse


def list_url(model: str) -> str:
    return reverse(f"admin:django_tasks_{model}_changelist")


def page_url(model: str, pk: Any) -> str:
    return reverse(f"admin:django_tasks_{model}_change", args=[pk])


def read(client: Client, url: str) -> str:
    """Return the page at ``url``, which must be there."""
    response = client.get(url)
    assert response.status_code == 200, (url, response.status_code, response.headers.get("Location"))
    return response.content.decode()


def ids_in(page: str) -> list[str]:
    """Return the ids of the rows of a list, in order."""
    return re.findall(r'name="_selected_action" value="([^"]+)"', page) or re.findall(
        r'field-task_name"[^>]*><a href="[^"]*/([0-9a-f-]{36})/change/', page
    )


def link(page: str, rel: str) -> str | None:
    """Return where the link to the ``next`` or ``prev`` page leads."""
    found = re.search(rf'<a href="([^"]+)" rel="{rel}"', page)
    return html.unescape(found[1]) if found else None


def text_of(page: str) -> str:
    """Return what the page says, without its markup."""
    return html.unescape(re.sub(r"<[^>]*>", " ", page.replace("<wbr>", "")))


class Tags(HTMLParser):
    """Every element of a page with its attributes, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
