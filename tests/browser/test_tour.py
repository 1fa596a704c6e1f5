"""Each page of the admin: under the strictest policy, in both themes, wide and narrow, in other languages and without
script; and read by axe, which knows what people with disabilities stumble over.

``SCREENSHOTS=directory`` keeps a picture of each page.
"""

from __future__ import annotations

from typing import Any

import django
import pytest
from axe_playwright_python.sync_playwright import Axe

from django_tasks import ids
from tests.browser.served import PHONE, keep, log_in
from tests.rows import failure, saved, waiting

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


@pytest.mark.parametrize("width", [1280, 1440])
def test_lists_and_buttons_fit_the_window(pages: dict[str, str], chromium: Any, site_url: str, width: int) -> None:
    page, complaints = log_in(chromium, site_url, viewport={"width": width, "height": 900})
    told: dict[str, Any] = {"name": "warehouse.integrations.suppliers.tasks.synchronise_prices_of_catalogue",
            "queue": "catalogue_imports", "body": '[["supplier-4711", 1543], {"since": "2026-11-22T00:00:00+00:00"}]',
            "root_id": ids.new_id(), "attempt": 2, "priority": 5}  # fmt: skip
    worker = "celery@ip-10-0-12-34.eu-central-1.compute.internal"
    saved([waiting(**told, state="UNROUTABLE"), waiting(**told, state="STARTED", custom_state="x" * 64, worker_id=1)])
    saved([failure("could not connect: Connection refused" * 4, **told, worker=worker, runtime=1234.5)])
    for path in [*(path for path in pages.values() if "/change/" not in path), "taskresult/"]:
        page.goto(site_url + path)
        for frame in page.locator(".results").all():
            assert frame.evaluate("one => one.scrollWidth - one.clientWidth") <= 0, path
    for path in ("task/", "taskresult/"):
        page.goto(site_url + path)
        assert page.locator("td.field-tries").first.is_hidden()
        page.goto(f"{site_url}{path}?columns=shown_state,tries,shown_id,workflow")
        for column in ("tries", "shown_id", "workflow"):
            assert page.locator(f"td.field-{column}").first.is_visible(), "what somebody chose is left out"
    page.goto(site_url + pages["running task"])
    boxes = [one.bounding_box() for one in page.locator(".object-tools li > *").all()]
    assert len({box["height"] for box in boxes}) == 1, "the buttons are of different heights"
    starts: dict[float, float] = {}
    for box in boxes:
        starts.setdefault(box["y"], box["x"])
    assert len(set(starts.values())) == 1, "the lines of the buttons begin at different places"
    assert not complaints


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
