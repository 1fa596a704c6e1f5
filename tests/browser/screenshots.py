"""Take the pictures of the documentation: ``make screenshots``.

They show a site that has been at work for an hour, its numbers always the same and its times those of the day.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import django
from django.core.management import call_command
from PIL import Image

DIRECTORY = Path(__file__).resolve().parents[2] / "docs" / "_static"
#: The page, and how much of it is shown, in pixels.
PICTURES = {
    "overview": 1120,
    "results": 640,
    "failed task": 900,
    "new periodic task": 900,
    "queue": 900,
    "task type": 900,
}
WIDTH = 1280
#: As many as make a file of at most 100 KB.
COLOURS = 160


def main() -> None:
    with TemporaryDirectory() as scratch:
        os.environ["DATABASE_URL"] = f"sqlite:///{scratch}/shop.sqlite3"
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
        django.setup()
        call_command("migrate", verbosity=0)
        _take(Path(scratch))


def _take(scratch: Path) -> None:
    from tests.browser import rows, served
    from tests.databases import TestDatabase

    if served.CHROMIUM is None:
        sys.exit("There is no Chromium: `make browser` installs it.")
    pages = rows.furnish(oddities=False)
    database = TestDatabase("sqlite", "default", os.environ["DATABASE_URL"], None)
    DIRECTORY.mkdir(exist_ok=True)
    with (
        served.served(database, scratch, "tests.browser.settings") as site_url,
        served.chromium() as browser,
    ):
        page, _complaints = served.log_in(browser, site_url, color_scheme="light")
        for name, height in PICTURES.items():
            page.set_viewport_size({"width": WIDTH, "height": height})
            page.goto(site_url + pages[name])
            file = DIRECTORY / f"{name.replace(' ', '-')}.png"
            page.screenshot(path=str(file))
            Image.open(file).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
            print(f"{file.name}: {file.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
