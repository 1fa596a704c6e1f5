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

from .. import __version__, addresses, exceptions, journal, routing
from ..backends import unfit
from ..backends.base import Queues, WorkerInfo
from ..conf import settings
from ..registry import tasks
from ..time_limits import TimeLimits, validate_limits
from . import commands  # noqa: F401 - they are registered by that
from .autoscale import Autoscale
from .embedded import embedded_beat
from .health import Health
from .logs import configure
from .pools import Pool, consumed, default_kind, label, parse
from .puller import ChildOptions, Options
from .solo import Solo
from .supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """A ``runworker`` command line, checked."""

    name: str
    queues: Queues
    pools: tuple[Pool, ...]
    loglevel: str
    logfile: str | None
    pidfile: str | None
    burst: bool
    shutdown_timeout: float
    max_tasks: int | None
    max_memory: int | None
    prefetch: int | None
    limits: TimeLimits
    autoscale: Autoscale | None
    health_file: str | None
    probe: tuple[str, int] | None
    beat: bool

    @classmethod
    def from_options(cls, given: dict[str, Any]) -> WorkerCommand:
        """Check the options. Raises ``CommandError`` that names option, value and what is allowed."""
        queues = Queues(_queues(given["queues"], "--queues"), frozenset(_queues(given["exclude_queues"], "-X")))
        if queues.names and queues.excluded.issuperset(queues.names):
            raise CommandError(f"--queues {','.join(queues.names)}: -X excludes all of them")
        concurrency = _at_least(1, given["concurrency"], "--concurrency")
        words = given["pool"] or [settings.WORKER_POOL or default_kind()]
        if words == ["solo"] and (concurrency or 1) > 1:
            raise CommandError(f"--concurrency {concurrency}: --pool solo runs one task at a time")
        try:
            pools = parse(
                words,
                queues=queues,
                names_queues=given["queues"] is not None,
                concurrency=concurrency or settings.WORKER_CONCURRENCY,
            )
        except ValueError as error:
            raise CommandError(str(error)) from None
        pool = label(pools)
        if pool == "solo" and given["shutdown_timeout"] is not None:
            raise CommandError(
                "--shutdown-timeout: --pool solo always waits for its task; no other process could end it"
            )
        return cls(
            name=_node_name(given["hostname"]),
            queues=consumed(pools),
            pools=pools,
            loglevel=loglevel(given["loglevel"]),
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
            limits=_limits(given["time_limit"], given["soft_time_limit"], pool),
            autoscale=_autoscale(given["autoscale"], pools),
            health_file=given["health_file"],
            probe=_probe(given["probe_port"]),
            beat=given["beat"],
        )

    @property
    def pool(self) -> str:
        """What the pools are called together."""
        return label(self.pools)

    @property
    def concurrency(self) -> int:
        """How many tasks may run at the same time."""
        return sum(pool.concurrency for pool in self.pools)

    def run(self, say: Callable[[str], Any]) -> int:
        """Run the worker; return its exit code."""
        configure_logs(self.loglevel, self.logfile, self.name)
        info = WorkerInfo(
            name=self.name,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            pool=self.pool,
            concurrency=self.concurrency,
            queues=self.queues,
            version=__version__ if settings.RELEASE is None else f"{__version__} {settings.RELEASE}",
            lease=settings.WORKER_LEASE,
        )
        options = Options(
            pools=self.pools,
            child=ChildOptions(self.queues, self.max_tasks, self.max_memory, self.prefetch, self.limits, self.burst),
            shutdown_timeout=self.shutdown_timeout,
            burst=self.burst,
            autoscale=self.autoscale,
        )
        say(banner(info))
        with _pidfile(self.pidfile and _expand(self.pidfile, self.name)):
            cls = Solo if self.pool == "solo" else Supervisor
            worker = cls(info, options, health_of(self.health_file, self.probe, self.name))
            beat = (
                embedded_beat(self.name, worker.steward.gate, worker.health) if self.beat else contextlib.nullcontext()
            )
            with beat:
                return worker.run()


def loglevel(given: str) -> str:
    """Return a level's name. Raises ``CommandError`` for what is none."""
    level = str(given).upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        raise CommandError(f"--loglevel {given!r}: allowed are DEBUG, INFO, WARNING, ERROR, CRITICAL")
    return level


def configure_logs(level: str, logfile: str | None, name: str) -> None:
    """Set logging up. Raises ``CommandError`` for a file that cannot be written."""
    try:
        configure(level, logfile and _expand(logfile, name))
    except OSError as error:
        raise CommandError(f"--logfile {logfile}: {error}") from error
    journal.start()


def health_of(file: str | None, probe: tuple[str, int] | None, name: str) -> Health:
    """Return what tells of the process's health. Raises ``CommandError`` for a file or a port that cannot be had."""
    try:
        return Health(file=file and _expand(file, name), probe=probe)
    except OSError as error:
        options = {"--health-file": file, "--probe-port": probe and probe[1]}
        given = ", ".join(f"{option} {value}" for option, value in options.items() if value is not None)
        raise CommandError(f"{given}: {error}") from error


def prepare(*, needs_tasks: bool = True) -> str | None:
    """Return what is missing for a worker, or a beat, to run, with the command that cures it; ``None`` if nothing is.

    A database or a broker that cannot be reached is no reason not to start: the worker waits for it.
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
        waiting = []
    with contextlib.suppress(exceptions.OperationalError):
        for one in unfit(settings.BROKER_URL):
            if one.fatal:
                return f"{one.problem} {one.cure}"
    if waiting:
        target = "" if alias == "default" else f" --database {alias}"
        return f"The tables of django_tasks are not up to date. Run: manage.py migrate django_tasks{target}"
    if needs_tasks and not tasks.own():
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
    broker = f"{connection.vendor} {settings.DATABASE!r} at {place}"
    if not addresses.is_database(settings.BROKER_URL):
        broker = f"{addresses.masked(settings.BROKER_URL)}, rows in {broker}"
    lines = [
        f" django-workbeat {info.version}   {info.name}",
        f"   broker       {broker}",
        f"   queues       {info.queues}",
        f"   concurrency  {info.concurrency} ({info.pool})",
        "   tasks        " + "\n                ".join(sorted(tasks.own())),
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
        limited = sorted(name for name, task in tasks.items() if task.time_limit is not None)
        found += [f"time_limit of {name} cannot be kept: no other process could end it." for name in limited]
        if settings.TASK_TIME_LIMIT is not None:
            found.append("TASK_TIME_LIMIT cannot be kept: no other process could end a task.")
        found.append("One process does everything: a task that blocks it for longer than the lease may run twice.")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        found.append("The worker runs as root; give it a user of its own.")
    if settings.TASK_ALWAYS_EAGER:
        found.append("TASK_ALWAYS_EAGER is on: this project runs its tasks in the caller and sends none here.")
    with contextlib.suppress(exceptions.OperationalError):
        found += [f"{one.problem} {one.cure}" for one in unfit(settings.BROKER_URL)]
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


def _probe(given: str | None) -> tuple[str, int] | None:
    if given is None:
        return None
    host, _, port = given.rpartition(":")
    if not port.isdecimal() or not int(port) <= 65_535:
        raise CommandError(f"--probe-port {given!r}: allowed are PORT and HOST:PORT, the port from 0 (any) to 65535")
    return host.strip("[]"), int(port)


def _at_least(least: int, given: Any, option: str) -> Any:
    if given is not None and not given >= least:
        raise CommandError(f"{option} {given}: must be at least {least}")
    return given


def _autoscale(given: str | None, pools: Sequence[Pool]) -> Autoscale | None:
    if given is None:
        return None
    if all(pool.kind != "prefork" for pool in pools):
        raise CommandError(f"--autoscale {given}: only a pool prefork grows and shrinks, not {label(pools)}")
    most, _, least = given.partition(",")
    try:
        return Autoscale(int(most), int(least or 1), settings.WORKER_AUTOSCALE_IDLE)
    except ValueError:
        raise CommandError(f"--autoscale {given}: allowed are MAX,MIN or MAX with 1 <= MIN <= MAX") from None


def _limits(hard: float | None, soft: float | None, pool: str) -> TimeLimits:
    names = {"hard_name": "--time-limit", "soft_name": "--soft-time-limit"}
    if pool == "solo" and hard is not None:
        raise CommandError(f"--time-limit {hard:g}: --pool solo has no other process that could end its task")
    try:
        settled = TimeLimits(settings.TASK_TIME_LIMIT, settings.TASK_SOFT_TIME_LIMIT)
        return validate_limits(*validate_limits(hard, soft, **names).over(settled), **names)
    except ValueError as error:
        raise CommandError(str(error)) from None


@contextlib.contextmanager
def _pidfile(path: str | None) -> Any:
    if path is None:
        yield
        return
    file = Path(path)
    try:
        if pid := _alive(file):
            raise CommandError(f"--pidfile {path}: it names the process {pid}, which is running", returncode=73)
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
