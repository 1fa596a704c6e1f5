#!/usr/bin/env python
"""Run the corner shop: its everyday jobs once, or with ``--serve`` the tour of all of them until Ctrl-C.

Makes a directory of its own below ``data/`` for database, pictures, mails and logs, and deletes it at the end.
Exits with 0 when all went well, 1 when something went wrong (which is told), 130 when the jobs were interrupted.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

DATA = Path(__file__).resolve().parent / "data"


def main() -> int:
    arguments = parse_arguments()
    # Every way of being stopped goes the way of Ctrl-C. SIGINT too: a shell's background job is born with it ignored.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, interrupt)
    DATA.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="demo-", dir=DATA))
    try:
        return run(directory, serve=arguments.serve, timeout=arguments.timeout)
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)
        return 0 if arguments.serve else 128 + signal.SIGINT
    finally:
        if arguments.keep:
            print(f"Kept: {directory}")
        else:
            shutil.rmtree(directory)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run the corner shop: its everyday jobs once, or the tour of all of them until Ctrl-C."
    )
    parser.add_argument("--serve", action="store_true", help="leave web server, worker and beat running until Ctrl-C")
    parser.add_argument("--keep", action="store_true", help="do not delete database, files and logs at the end")
    parser.add_argument(
        "--timeout", type=float, default=50, metavar="SECONDS", help="how long the jobs may take; default 50"
    )
    return parser.parse_args()


def run(directory: Path, *, serve: bool, timeout: float) -> int:
    # The worker and the web server are started with this environment, so they open the same shop.
    os.environ["CORNER_SHOP_DATA"] = str(directory)
    os.environ["CORNER_SHOP_SECRET_KEY"] = secrets.token_urlsafe(50)
    os.environ["DJANGO_SETTINGS_MODULE"] = "corner_shop.settings"
    try:
        import django
        import PIL

        import django_tasks
    except ImportError as error:
        print(f"{error}. Install what the demo needs: pip install -e '.[demo]'", file=sys.stderr)
        return 1
    print(f"Django {django.__version__}, django_tasks {django_tasks.__version__}, Pillow {PIL.__version__}", flush=True)
    django.setup()
    from showcase import shows
    from showcase.errors import ShowcaseError

    started = time.monotonic()
    try:
        if serve:
            shows.serve(directory)
        else:
            shows.run_all(directory, timeout=timeout)
    except ShowcaseError as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    print(f"── All done in {time.monotonic() - started:.1f} s")
    return 0


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Leave all ``with`` blocks, which stops what was started."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
