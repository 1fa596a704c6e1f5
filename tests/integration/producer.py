"""A program that sends tasks until it is killed, and writes down what was accepted.

``python -m tests.integration.producer FILE``: one task id a line, written after ``delay()`` returned. With
``--rollback`` each task is sent in a transaction that is rolled back; with ``--die-after-commit`` the first one's
transaction is committed, and nothing that was to follow happens.
"""

from __future__ import annotations

import os
import signal
import sys

import django


def main(path: str, *, rollback: bool, die: bool) -> None:
    """Send for ever; every accepted id is on its way to the disk before the next task is sent."""
    django.setup()

    from django.db import transaction

    from tests.integration.jobs import work

    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        with transaction.atomic():
            if die:
                transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
            result = work.delay()
            if rollback:
                transaction.set_rollback(True)
        os.write(descriptor, f"{result.id}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], rollback="--rollback" in sys.argv, die="--die-after-commit" in sys.argv)
