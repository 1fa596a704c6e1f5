"""What every thread does right now, on standard error, when SIGUSR1 asks (as Celery's worker does)."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import signal
import sys


def dump_on_signal() -> None:
    """Dump the stacks of all threads of this process at each SIGUSR1, even while its interpreter is blocked."""
    # Where standard error is no file (it is redirected to the log), the original one is.
    for stream in (sys.stderr, sys.__stderr__):
        with contextlib.suppress(AttributeError, io.UnsupportedOperation, ValueError):
            faulthandler.register(signal.SIGUSR1, file=stream or 2, all_threads=True, chain=False)
            return
