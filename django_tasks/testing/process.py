"""The process of a test's worker: ``runworker`` with settings that come on standard input.

``python -m django_tasks.testing.process <descriptor>`` writes one byte to the descriptor when the worker is ready, and
ends in order when its standard input does: when the process of the test is gone.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
import threading
import warnings
from typing import Any

#: Before the settings comes their size in bytes.
SIZE = struct.Struct("!Q")
_STDIN = 0


def main() -> None:
    """Run the worker."""
    size = SIZE.unpack(_read(SIZE.size))[0]
    path, changed, options = pickle.loads(_read(size))  # noqa: S301 - from the process that started this one
    del os.environ["PYTHONPATH"]  # which was for this process alone
    if path is not None:
        os.environ["PYTHONPATH"] = path
    from django.conf import settings
    from django.core.management import execute_from_command_line

    from .. import signals

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the process of the test has been warned of its settings
        for name, value in changed.items():
            setattr(settings, name, value)

    signals.worker_ready.connect(_tell, weak=False)
    threading.Thread(target=_end_with_the_test, name="test", daemon=True).start()
    execute_from_command_line(["manage.py", "runworker", *options])


def _read(size: int) -> bytes:
    # Not through sys.stdin: the thread that waits for the end would hold its lock while the worker forks.
    data = b""
    while len(data) < size:
        part = os.read(_STDIN, size - len(data))
        if not part:
            sys.exit("The process of the test is gone")
        data += part
    return data


def _tell(**told: Any) -> None:
    descriptor = int(sys.argv[1])
    os.write(descriptor, b"!")
    os.close(descriptor)


def _end_with_the_test() -> None:
    while os.read(_STDIN, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
