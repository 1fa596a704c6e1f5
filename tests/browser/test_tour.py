"""Each page of the admin: under the strictest policy, in both themes, wide and narrow, in other languages and without
script; and read by axe, which knows what people with disabilities stumble over.

``SCREENSHOTS=directory`` keeps a picture of each page.
"""

from __future__ import annotations

from typing import Any

import django
import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.served import PHONE, keep, log_in

pytestmark = [pytest.mark.databases("sqlite"), pytest.mark.timeout(600)]

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark phone": {"color_scheme": "dark", "viewport": PHONE},
    "german without script": {"locale": "de-DE", "java_script_enabled": False},
    "arabic phone": {"locale": "ar", "viewport": PHONE},
}
#: What axe looks for, besides what it looks for anyway: everything, or what is another matter in the dark on a phone.
RULES: dict[str, dict[str, Any]] = {"light": {}, "dark phone": {"runOnly": ["color-contrast", "target-size"]}}
#: What is Django's own: the visible label of its search field is a picture, and its filters are small.
DJANGOS = {"exclude": [["#searchbar"], ["#changelist-filter"]]}


@pytest.mark.parametrize("look", LOOKS)
def test_each_page_stands(pages: dict[str, str], chromium: Any, site_url: str, look: str) -> None:
    page, complaints = log_in(chromium, site_url, **LOOKS[look])
    wide, serious = [], {}
    for name, path in pages.items():
        assert page.goto(site_url + path).status == 200, name
        keep(page, f"{name}-{look}")
        root = page.locator("html")
        assert root.get_attribute("lang") == {"german": "de", "arabic": "ar"}.get(look.split()[0], "en"), name
        assert root.get_attribute("dir") == ("rtl" if "arabic" in look else "ltr"), name
        if "viewport" in LOOKS[look]:
            wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            wide += [name] if wider > 1 else []
        if name == "running task":
            assert page.locator("progress").evaluate("one => one.position") == 0.62, "6,200 or 6.200 are no 6200"
        assert not complaints, name
        if look in RULES and django.VERSION >= (6, 1):  # the frames of older releases are found wanting themselves
            serious.update({f"{name}: {key}": places for key, places in axe(page, RULES[look]).items()})
            complaints.clear()  # axe tries styles
    assert not wide, "wider than a phone"
    assert not serious


def axe(page: Any, rules: dict[str, Any]) -> dict[str, list[str]]:
    """Return what axe takes for serious or critical, and where the first of it stands."""
    for details in page.locator("#content details").all():
        details.evaluate("one => { one.open = true }")
    found = Axe().run(page, DJANGOS, {"resultTypes": ["violations"], **rules}).response["violations"]
    return {
        f"{one['id']}, {one['help']}": [f"{node['target']} {node['html'][:120]}" for node in one["nodes"][:3]]
        for one in found
        if one["impact"] in ("serious", "critical")
    }
