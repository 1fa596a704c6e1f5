"""What the page of a task does in a browser: what is folded, and what is copied."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.served import log_in
from tests.rows import failure, saved

pytestmark = pytest.mark.databases("sqlite")

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 7, in send
    post(letter)
  File "/usr/lib/python3.13/smtplib.py", line 100, in post
    raise OSError
OSError: down"""
#: As on a page that does not come by HTTPS.
NO_CLIPBOARD = "Object.defineProperty(navigator, 'clipboard', { value: undefined })"


@pytest.mark.parametrize("clipboard", [True, False], ids=["clipboard", "no clipboard"])
def test_what_is_shown_can_be_copied(pages: dict[str, str], chromium: Any, site_url: str, clipboard: bool) -> None:
    page, complaints = log_in(chromium, site_url)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    if not clipboard:
        page.add_init_script(NO_CLIPBOARD)
    [row] = saved([failure(traceback=TRACEBACK, body="[[1,[2]],{}]")])  # one with a tree beside its text
    said = {
        "arguments": "x: 1\ny: [\n  2\n]",
        "exception": "ValueError: boom",
        "traceback": TRACEBACK,
        "id": str(row.pk),
    }
    for what, text in said.items():
        page.goto(f"{site_url}taskresult/{row.pk}/change/")
        button = page.get_by_role("button", name=f"Copy the {what}", exact=True)
        button.focus()
        page.keyboard.press("Enter")
        page.get_by_role("status").filter(has_text="Copied.").wait_for()
        assert button.evaluate("one => one === document.activeElement"), "the focus is lost"
        page.goto(f"{site_url}taskresult/{row.pk}/edit/")
        page.locator("textarea").first.fill("")
        page.keyboard.press("Control+v")
        assert page.locator("textarea").first.input_value() == text, what
    assert not complaints


def test_frames_unfold_and_nothing_offers_to_copy_without_script(
    pages: dict[str, str], chromium: Any, site_url: str
) -> None:
    page, complaints = log_in(chromium, site_url, java_script_enabled=False)
    [row] = saved([failure(traceback=TRACEBACK)])
    page.goto(f"{site_url}taskresult/{row.pk}/change/")
    assert page.get_by_text("/srv/shop/tasks.py").is_visible()
    library = page.get_by_text("smtplib.py")
    assert not library.is_visible()
    page.get_by_text("1 frame of a library").click()
    assert library.is_visible()
    assert page.get_by_role("button", name="Copy").count() == 0
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as JSON").first.click()
    assert download.value.suggested_filename == f"{row.pk}-arguments.json"
    assert not complaints
