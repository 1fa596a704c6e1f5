"""The pages under a policy that allows nothing but what bears the nonce of the answer."""

from __future__ import annotations

import copy
from typing import Any

import django
import pytest
from django.conf import settings
from django.test import Client, override_settings

from tests.admin.pages import Tags, list_url, page_url, read
from tests.rows import failure, saved

pytestmark = [
    pytest.mark.databases("sqlite"),
    pytest.mark.skipif(django.VERSION < (6, 1), reason="Django's own admin has no nonces before 6.1"),
]


@pytest.mark.parametrize("page", ["overview", "queue", "task", "result", "limit", "periodictask", "failures"])
def test_every_script_and_style_of_a_page_bears_the_nonce(root: Client, page: str) -> None:
    templates: Any = copy.deepcopy(settings.TEMPLATES)
    templates[0]["OPTIONS"]["context_processors"].append("django.template.context_processors.csp")
    middleware = [*settings.MIDDLEWARE, "django.middleware.csp.ContentSecurityPolicyMiddleware"]
    [row] = saved([failure()])
    urls = {"result": page_url("taskresult", row.pk), "failures": f"{list_url('taskresult')}failures/"}
    with override_settings(TEMPLATES=templates, MIDDLEWARE=middleware):
        seen = Tags(read(root, urls.get(page) or list_url(page))).seen
    asked = [
        attributes
        for tag, attributes in seen
        if (tag == "script" and "src" in attributes) or attributes.get("rel") == "stylesheet"
    ]
    assert len(asked) > 5
    assert [attributes for attributes in asked if not attributes.get("nonce")] == []
