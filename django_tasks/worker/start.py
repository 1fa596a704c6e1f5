"""From a command line to a running worker: what is missing is said before anything starts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError, OperationalError, connections
from django.db.migrations.executor import MigrationExecutor
from django.utils import autoreload

from .. import __version__, routing
from ..backends.base import Queues, WorkerInfo
from ..conf import settings
from ..registry import tasks
from .child import ChildOptions, Options
from .logs import configure
from .solo import Solo
from .supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """A ``runworker`` command line, checked."""

    name: str
    queues: Queues
    concurrency: int
    pool: str
    loglevel: str
    logfile: str | None
    pidfile: str | None
    burst: bool
    shutdown_timeout: float
    max_tasks: int | None
    max_memory: int | None
    prefetch: int | None

    @classmethod
    def from_options(cls, given: dict[str, Any]) -> WorkerCommand:
        """Check the options. Raises ``CommandError`` that names option, value and what is allowed."""
        pool = given["pool"] or settings.WORKER_POOL or ("prefork" if hasattr(os, "fork") else "solo")
        if pool == "prefork" and not hasattr(os, "fork"):
            raise CommandError("--pool prefork needs fork(), which this system lacks; use --pool solo")
        if pool == "solo" and (given["concurrency"] or 1) > 1:
            raise CommandError(f"--concurrency {given['concurrency']}: --pool solo runs one task at a time")
        if pool == "solo" and given["shutdown_timeout"] is not None:
            raise CommandError(
                "--shutdown-timeout: --pool solo always waits for its task; no other process could end it"
            )
        loglevel = str(given["loglevel"]).upper()
        if loglevel not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
            raise CommandError(f"--loglevel {given['loglevel']!r}: allowed are DEBUG, INFO, WARNING, ERROR, CRITICAL")
        queues = Queues(_queues(given["queues"], "--queues"), frozenset(_queues(given["exclude_queues"], "-X")))
        if queues.names and queues.excluded.issuperset(queues.names):
            raise CommandError(f"--queues {','.join(queues.names)}: -X excludes all of them")
        return cls(
            name=_node_name(given["hostname"]),
            queues=queues,
            concurrency=_at_least(1, given["concurrency"], "--concurrency") or settings.WORKER_CONCURRENCY or _cpus(),
            pool=pool,
            loglevel=loglevel,
            logfile=given["logfile"],
            pidfile=given["pidfile"],
            burst=given["burst"],
            shutdown_timeout=(
                settings.WORKER_SHUTDOWN_TIMEOUT
                if given["shutdown_timeout"] is None
                else _at_least(0, given["shutdown_timeout"], "--shutdown-timeout")
            ),
            max_tasks=_at_least(1, given["max_tasks_per_child"], "--max-tasks-per-child")
            or settings.WORKER_MAX_TASKS_PER_CHILD,
            max_memory=_at_least(1, given["max_memory_per_child"], "--max-memory-per-child")
            or settings.WORKER_MAX_MEMORY_PER_CHILD,
            prefetch=_at_least(1, given["prefetch_multiplier"], "--prefetch-multiplier")
            or settings.WORKER_PREFETCH_MULTIPLIER,
        )

    def run(self, say: Callable[[str], Any]) -> int:
        """Run the worker; return its exit code."""
        try:
            configure(self.loglevel, self.logfile and _expand(self.logfile, self.name))
        except OSError as error:
            raise CommandError(f"--logfile {self.logfile}: {error}") from error
        info = WorkerInfo(
            name=self.name,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            pool=self.pool,
            concurrency=1 if self.pool == "solo" else self.concurrency,
            queues=self.queues,
            version=__version__,
            lease=settings.WORKER_LEASE,
        )
        options = Options(
            concurrency=self.concurrency,
            pool=self.pool,
            child=ChildOptions(self.queues, self.max_tasks, self.max_memory, self.prefetch),
            shutdown_timeout=self.shutdown_timeout,
            burst=self.burst,
        )
        say(banner(info))
        with _pidfile(self.pidfile and _expand(self.pidfile, self.name)):
            worker: Supervisor | Solo = Solo(info, options) if self.pool == "solo" else Supervisor(info, options)
            return worker.run()


def prepare() -> str | None:
    """Return what is missing for a worker to run, with the command that cures it; ``None`` if nothing is.

    A database that cannot be reached is no reason not to start: the worker waits for it.
    """
    alias = settings.DATABASE
    try:
        connection = connections[alias]
        executor = MigrationExecutor(connection)
        waiting = executor.migration_plan(
            [leaf for leaf in executor.loader.graph.leaf_nodes() if leaf[0] == "django_tasks"]
        )
        connection.close()
    except (OperationalError, DatabaseError):
        return None
    if waiting:
        target = "" if alias == "default" else f" --database {alias}"
        return f"The tables of django_tasks are not up to date. Run: manage.py migrate django_tasks{target}"
    if not tasks:
        return (
            "No tasks are registered. Declare one with @shared_task in the tasks.py of an app in INSTALLED_APPS, "
            "or name its module in DJANGO_TASKS['IMPORTS']."
        )
    return None


def banner(info: WorkerInfo) -> str:
    """Return what a worker says of itself when it starts."""
    connection = connections[settings.DATABASE]
    where = connection.settings_dict
    place = (
        where["NAME"]
        if connection.vendor == "sqlite"
        else f"{where['HOST'] or 'local'}:{where['PORT'] or ''}/{where['NAME']}"
    )
    lines = [
        f" django-workbeat {info.version}   {info.name}",
        f"   broker       {connection.vendor} {settings.DATABASE!r} at {place}",
        f"   queues       {info.queues}",
        f"   concurrency  {info.concurrency} ({info.pool})",
        "   tasks        " + "\n                ".join(sorted(tasks)),
    ]
    lines += [f"   ! {warning}" for warning in _warnings(info)]
    return "\n".join(lines)


def watch_and_restart(arguments: Sequence[str]) -> int:
    """Run the worker as a child process; when code changes, let it finish its tasks and start it anew."""
    reloader = autoreload.get_reloader()

    def stop(number: int, frame: FrameType | None) -> None:
        process.terminate()  # or it would outlive us
        raise KeyboardInterrupt

    changed = False
    while True:
        process = subprocess.Popen(arguments)  # noqa: S603 - our own command line
        signal.signal(signal.SIGTERM, stop)
        try:
            for _ in reloader.tick():
                code = process.poll()
                if code is not None and not (code and changed):  # a broken change is waited out: mending it is one, too
                    return code
        except SystemExit:  # how Django's reloader says that a file changed
            changed = True
            process.terminate()
            process.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
            return process.wait()


def _warnings(info: WorkerInfo) -> list[str]:
    found = []
    if info.pool == "solo":
        found.append("One process does everything: a task that blocks it for longer than the lease may run twice.")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        found.append("The worker runs as root; give it a user of its own.")
    if settings.TASK_ALWAYS_EAGER:
        found.append("TASK_ALWAYS_EAGER is on: this project runs its tasks in the caller and sends none here.")
    return found


def _node_name(given: str | None) -> str:
    name = _expand(given or "worker@%h", "worker")
    if not 0 < len(name) <= 255 or not name.isprintable():
        raise CommandError(f"--hostname {given!r}: a node name has 1 to 255 printable characters")
    return name


def _expand(text: str, name: str) -> str:
    host = socket.gethostname()
    short, _, domain = host.partition(".")
    for mark, value in (
        ("%h", host),
        ("%n", name.partition("@")[0]),
        ("%d", domain or short),
        ("%p", str(os.getpid())),
    ):
        text = text.replace(mark, value)
    return text


def _queues(given: Sequence[str] | None, option: str) -> tuple[str, ...]:
    names = [name for part in given or () for name in part.split(",") if name]
    if given is not None and not names:
        raise CommandError(f"{option} names no queue")
    if names == ["*"]:
        return ()
    try:
        return tuple(dict.fromkeys(routing.validate_queue(name) for name in names))
    except (TypeError, ValueError) as error:
        raise CommandError(f"{option}: {error}") from None


def _at_least(least: int, given: Any, option: str) -> Any:
    if given is not None and not given >= least:
        raise CommandError(f"{option} {given}: must be at least {least}")
    return given


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _pidfile(path: str | None) -> Any:
    if path is None:
        yield
        return
    file = Path(path)
    try:
        if pid := _alive(file):
            raise CommandError(f"--pidfile {path}: a worker with process id {pid} is running", returncode=73)
        file.write_text(f"{os.getpid()}\n")
    except OSError as error:
        raise CommandError(f"--pidfile {path}: {error}") from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _alive(file: Path) -> int | None:
    """Return the process id in the file if somebody else has it now."""
    try:
        pid = int(file.read_text())
        if pid <= 0 or pid == os.getpid():  # in a container, the one before us had our number
            return None
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    except PermissionError:
        pass  # another user's
    return pid
