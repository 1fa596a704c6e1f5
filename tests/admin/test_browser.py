"""The pages of tasks in a real browser under the strictest policy: with script and without, wide and narrow.

Skipped where no Chromium is installed. ``SCREENSHOTS=directory`` keeps a picture of each page.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from django_tasks import states
from django_tasks.models import BulkOperation
from tests.cockpit.test_browser import chromium, log_in, site_url
from tests.rows import KNOWN, ago, failure, saved, waiting

__all__ = ["chromium", "site_url"]

pytestmark = pytest.mark.databases("sqlite")

#: A phone's width in pixels.
PHONE = {"width": 390, "height": 844}


@pytest.fixture
def pages(site_url: str) -> dict[str, str]:
    """Give the addresses of pages on which there is something to see.

    Ask for it before the browser: while that runs, this process has other connections to databases.
    """
    attempts = [
        {"attempt": n, "outcome": "RETRY", "worker": "w1@web", "at": ago(90 - 30 * n).timestamp(), "runtime": 5.0,
         "error": {"exc_type": "TimeoutError", "text": "no answer"}, "traceback": "Traceback …"}
        for n in (1, 2)
    ]  # fmt: skip
    [bad] = saved(
        [
            failure(
                name=KNOWN,
                created_at=ago(120),
                due_at=ago(120),
                started_at=ago(20),
                finished_at=ago(10),
                attempt=3,
                retries=2,
                history=json.dumps(attempts),
                body="[[2, 3], {}]",
                runtime=10.0,
            )
        ]
    )
    meta = json.dumps({"current": 62, "total": 100})
    [running] = saved(
        [waiting(state=states.STARTED, custom_state="PROGRESS", meta=meta, worker_id=1, slot=0, started_at=ago(60))]
    )
    operation = BulkOperation.objects.create(
        action="retry", user_id="1", user_name="root", created_at=ago(5), started_at=ago(4), total=200, changed=120,
        left=3, reasons='{"queued": 3}', state="running", filters='{"state": "FAILURE"}', search="since:2h",
    )  # fmt: skip
    return {
        "results": f"{site_url}taskresult/?state=FAILURE",
        "tasks": f"{site_url}task/",
        "failed": f"{site_url}taskresult/{bad.pk}/change/",
        "running": f"{site_url}task/{running.pk}/change/",
        "edit": f"{site_url}taskresult/{bad.pk}/edit/",
        "failures": f"{site_url}taskresult/failures/",
        "operations": f"{site_url}bulkoperation/",
        "operation": f"{site_url}bulkoperation/{operation.pk}/change/",
    }


def keep(page: Any, name: str) -> None:
    if directory := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=str(Path(directory) / f"{name}.png"), full_page=True)


@pytest.mark.parametrize(
    ("look", "options"),
    [
        ("light", {}),
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": PHONE}),
        ("plain", {"java_script_enabled": False}),
    ],
)
def test_each_page_stands_under_the_strictest_policy(
    pages: dict[str, str], chromium: Any, site_url: str, look: str, options: dict[str, Any]
) -> None:
    page, complaints = log_in(chromium, site_url, **options)
    for name, url in pages.items():
        assert page.goto(url).status == 200, name
        keep(page, f"{name}-{look}")
        if look == "phone":
            wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wider <= 1, f"{name} is wider than a phone"
    assert complaints == []


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_all_that_match_run_again(pages: dict[str, str], chromium: Any, site_url: str, script: bool) -> None:
    """The whole way, as a person goes it: choose all, be asked, say yes, and stop it."""
    page, complaints = log_in(chromium, site_url, java_script_enabled=script)
    page.goto(pages["results"])
    page.select_option("select[name=action]", "retry")
    page.check("input[name=select_across]")
    page.click("button[name=index]")
    assert "21 rows." in page.inner_text("#content")
    keep(page, f"question-{script}")
    page.click("input[type=submit][value='Yes, run again']")
    page.wait_for_url("**/bulkoperation/*/change/")
    page.click("text=Stop")
    page.get_by_text("stops after the present batch").wait_for()
    keep(page, f"stopped-{script}")
    assert complaints == []
