"""A program that sends the same unique task many times, when it is told to, and prints the ids that it was given.

``python -m tests.integration.unique_sender GATE COUNT``
"""

from __future__ import annotations

import sys
from pathlib import Path

import django


def main(gate: str, count: int) -> None:
    """Wait for the gate, then send."""
    django.setup()
    from tests.integration.jobs import wait_for
    from tests.integration.limited_jobs import only_one

    print("ready", flush=True)
    wait_for(Path(gate))
    for _ in range(count):
        print(only_one.delay(1).id, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
