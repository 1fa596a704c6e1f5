"""Starts the shop's ``manage.py`` commands as processes of their own, and stops them."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

from showcase.errors import ShowcaseError

MANAGE = Path(__file__).resolve().parent.parent / "manage.py"
#: Seconds that a process gets to end by itself.
STOP_TIMEOUT = 15
#: Seconds that the web server gets to answer its first request.
WEB_TIMEOUT = 20
#: Lines of a log to show when something went wrong.
LOG_TAIL = 30


class ManagedProcess:
    """A ``manage.py`` command that runs beside us and writes to a log file. Leaving the ``with`` block stops it."""

    def __init__(self, name: str, *arguments: str, log: Path, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        # In a session of its own, the process does not get the Ctrl-C that is meant for us: we stop it, and once.
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own manage.py, arguments from our own code
                [sys.executable, str(MANAGE), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except ShowcaseError:
            # What happened inside the block is the better explanation.
            if error is None:
                raise

    def check_running(self) -> None:
        """Raise ``ShowcaseError`` when the process has ended by itself."""
        if (code := self._process.poll()) is not None:
            raise ShowcaseError(f"The {self.name} ended by itself with exit code {code}.")

    def stop(self) -> None:
        """Ask the process to end, and wait for it. Does nothing when it was stopped before.

        Raises ``ShowcaseError`` when it had ended already, does not end in time, or ends with another code than 0.
        """
        if self._process.returncode is not None:
            return
        self.check_running()
        self._process.send_signal(self._stop_signal)
        try:
            code = self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._kill()
            raise ShowcaseError(
                f"The {self.name} did not end within {STOP_TIMEOUT} s of {self._stop_signal.name} and was killed."
            ) from None
        except KeyboardInterrupt:
            self._kill()
            raise
        if code != 0:
            raise ShowcaseError(f"The {self.name} ended with exit code {code} after {self._stop_signal.name}.")

    def log_tail(self) -> str:
        """Return the last lines that the process wrote."""
        with self.log.open(encoding="utf-8", errors="replace") as log:
            return "".join(deque(log, LOG_TAIL))

    def _kill(self) -> None:
        """End the process and those that it started."""
        if hasattr(os, "killpg"):
            os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait()


def free_port(wanted: int) -> int:
    """Return ``wanted`` when nothing listens there, else a free port of the system's choice."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ShowcaseError("No port is free on 127.0.0.1.")


def wait_for_web(server: ManagedProcess, port: int) -> None:
    """Return when the web server answers ``/``. Raises ``ShowcaseError`` when it answers an error, or not in time."""
    deadline = time.monotonic() + WEB_TIMEOUT
    while time.monotonic() < deadline:
        server.check_running()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WEB_TIMEOUT)
        try:
            connection.request("GET", "/")
            status = connection.getresponse().status
        except OSError:
            time.sleep(0.1)
            continue
        finally:
            connection.close()
        if status != http.HTTPStatus.OK:
            raise ShowcaseError(f"The web server answers / with status {status}.")
        return
    raise ShowcaseError(f"The web server did not answer within {WEB_TIMEOUT} s.")
