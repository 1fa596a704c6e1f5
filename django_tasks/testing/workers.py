"""A real worker on the test's database, for tests that commit: in a process of its own, from ready to stopped."""

from __future__ import annotations

import os
import pickle
import select
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import IO, Any

from django.conf import ENVIRONMENT_VARIABLE, global_settings
from django.conf import settings as django_settings
from django.db import connections

from ..conf import NAMESPACE, settings
from ..routing import validate_queue
from .eager import overridden
from .process import SIZE

#: Seconds that an orderly end may take beyond what the worker gives its tasks.
PARTING = 15.0
#: Characters of the worker's log that an error shows.
SHOWN = 4_000


class WorkerProcess:
    """A running ``manage.py runworker``."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def said(self) -> str:
        """Return what it wrote so far, its log and what its tasks print."""
        # Read apart from the file's position, which is the worker's, too.
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode(errors="replace")


@contextmanager
def worker(
    *,
    queues: Sequence[str] = (),
    concurrency: int = 1,
    pool: str | None = None,
    imports: Sequence[str] = (),
    timeout: float = 60,
) -> Iterator[WorkerProcess]:
    """Let a real worker run during this block: ``manage.py runworker`` in a process of its own, on the test's database.

    Returns once it is ready, and ends it in order, as SIGTERM does: running tasks are finished. It has the settings of
    this moment, also those that the test has changed. Within the block eager mode is off. ``queues``: which, all by
    default; ``concurrency``, ``pool``: as ``runworker`` has them; ``imports``: further modules with tasks, such as the
    test's own; ``timeout``: seconds in which it must be ready.

    Raises ``RuntimeError`` when no other process could see what the test does: within a transaction (``TestCase``), on
    a SQLite database in memory; and when it does not start, or does not end as it should, with what it said.
    """
    _check_visible()
    options = ["--concurrency", str(concurrency), "--hostname", "testing@%h"]
    if pool is not None:
        options += ["--pool", pool]
    if queues:
        options += ["--queues", ",".join(validate_queue(queue) for queue in queues)]
    with overridden(TASK_ALWAYS_EAGER=False, IMPORTS=[*settings.IMPORTS, *imports]), tempfile.TemporaryFile() as log:
        process, ready = _start(options, log)
        started = WorkerProcess(process, log)
        try:
            _wait_until_ready(started, process, ready, timeout)
            try:
                yield started
            except BaseException as error:
                error.add_note(f"Meanwhile the worker said:\n{started.said()[-SHOWN:]}")
                raise
            _stop(started, process)
        finally:
            os.close(ready)
            if process.stdin is not None:
                process.stdin.close()  # it takes this for the end of the test
            if process.poll() is None:
                process.terminate()
                _wait_or_kill(process)


def _check_visible() -> None:
    connection: Any = connections[settings.DATABASE]
    if connection.in_atomic_block:
        raise RuntimeError(
            "worker() is of no use within a transaction: no other process sees its rows. Instead of TestCase use "
            "TransactionTestCase, LiveServerTestCase or @pytest.mark.django_db(transaction=True); or run the tasks "
            "here, with run_tasks()."
        )
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        raise RuntimeError(
            "worker() is of no use on a SQLite database in memory: no other process sees it. Give the tests a file: "
            f'DATABASES["{settings.DATABASE}"]["TEST"] = {{"NAME": BASE_DIR / "test.sqlite3"}}; or run the tasks here, '
            "with run_tasks()."
        )


def _start(options: Sequence[str], log: IO[bytes]) -> tuple[subprocess.Popen[bytes], int]:
    """Start the process and hand it its settings; return it and the descriptor that tells when it is ready."""
    module = os.environ.get(ENVIRONMENT_VARIABLE)
    if not module:
        raise RuntimeError(
            f"worker() needs settings that another process can import; {ENVIRONMENT_VARIABLE} names no module"
        )
    handed = pickle.dumps((os.environ.get("PYTHONPATH"), _changed_settings(module), list(options)))
    ready, tells = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-P", "-m", "django_tasks.testing.process", str(tells)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_path())},
            pass_fds=[tells],
        )
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(tells)
    stream: Any = process.stdin
    try:
        stream.write(SIZE.pack(len(handed)) + handed)
        stream.flush()
    except BrokenPipeError:  # it is dead already; what it said follows
        pass
    return process, ready


def _path() -> list[str]:
    """Return where the test finds its modules. The standard library comes first: what stands before it, test runners
    put there late, when it was loaded already."""
    standard = sysconfig.get_path("stdlib")
    places = [os.path.abspath(place) for place in sys.path]
    return sorted(places, key=lambda place: not place.startswith(standard) or "-packages" in place)


def _changed_settings(module: str) -> dict[str, Any]:
    """Return the settings that are not what the module says: those of the test runner and of the test itself.

    Raises ``RuntimeError`` for one that cannot be handed to another process.
    """
    told = import_module(module)
    wrapped: Any = vars(django_settings)["_wrapped"]  # which gives even a deprecated one without a word
    changed = {}
    for name in dir(django_settings):
        if name.isupper() and name not in ("DATABASES", "SETTINGS_MODULE"):
            value = getattr(wrapped, name)
            if value != getattr(told, name, getattr(global_settings, name, None)):
                changed[name] = value
    changed["DATABASES"] = {alias: connections[alias].settings_dict for alias in connections}
    for name, value in changed.items():
        try:
            pickle.dumps(value)
        except Exception as error:
            raise RuntimeError(
                f"worker() cannot hand the setting {name} to another process, and the test has changed it: {error}"
            ) from error
    assert NAMESPACE in changed  # noqa: S101 - worker() has changed it
    return changed


def _wait_until_ready(started: WorkerProcess, process: subprocess.Popen[bytes], ready: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        readable, _, _ = select.select([ready], [], [], 0.1)
        if readable and os.read(ready, 1):
            return
        if readable or process.poll() is not None:
            raise RuntimeError(f"The worker ended with {_wait_or_kill(process)}:\n{started.said()[-SHOWN:]}")
    raise RuntimeError(f"The worker was not ready within {timeout:g} s:\n{started.said()[-SHOWN:]}")


def _stop(started: WorkerProcess, process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    code = _wait_or_kill(process)
    if code:
        raise RuntimeError(f"The worker ended with {code}:\n{started.said()[-SHOWN:]}")


def _wait_or_kill(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code; of a process that does not end, -9 after it was killed."""
    try:
        return process.wait(settings.WORKER_SHUTDOWN_TIMEOUT + PARTING)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
