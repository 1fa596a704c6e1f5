"""From a command line to a running beat: options, log, process id file and health are those of a worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.management.base import CommandError
from django.db import connections
from django.utils.module_loading import import_string

from .. import __version__
from ..beat import Scheduler, Service
from ..conf import settings
from . import start

#: Seconds between two wake-ups that the command line may ask for, at least.
SHORTEST_INTERVAL = 0.1


@dataclass(frozen=True, slots=True)
class BeatCommand:
    """A ``runbeat`` command line, checked."""

    name: str
    loglevel: str
    logfile: str | None
    pidfile: str | None
    health_file: str | None
    probe: tuple[str, int] | None
    service: Service

    @classmethod
    def from_options(cls, given: dict[str, Any]) -> BeatCommand:
        """Check the options. Raises ``CommandError`` that names option, value and what is allowed."""
        interval = given["max_interval"]
        if interval is not None and not interval >= SHORTEST_INTERVAL:
            raise CommandError(f"--max-interval {interval:g}: must be at least {SHORTEST_INTERVAL} seconds")
        name = start._node_name(given["hostname"] or "beat@%h")
        return cls(
            name=name,
            loglevel=start.loglevel(given["loglevel"]),
            logfile=given["logfile"],
            pidfile=given["pidfile"],
            health_file=given["health_file"],
            probe=start._probe(given["probe_port"]),
            service=Service(max_interval=interval, scheduler_cls=_scheduler(given["scheduler"]), name=name),
        )

    def run(self, say: Callable[[str], Any]) -> None:
        """Run the beat until its service is stopped."""
        start.configure_logs(self.loglevel, self.logfile, self.name)
        connection = connections[settings.DATABASE]
        where = f"{connection.vendor} {settings.DATABASE!r}"
        say(f" django-workbeat {__version__}   {self.name}\n   schedules    {where}")
        health = start.health_of(self.health_file, self.probe, self.name)
        health.watch(self.service, "beat")
        with start._pidfile(self.pidfile and start._expand(self.pidfile, self.name)):
            # In a thread of its own, so that signals and probes are answered whatever the database does.
            thread = threading.Thread(target=self.service.start, name="beat", daemon=True)
            thread.start()
            health.started()
            while thread.is_alive():
                health.main_turned()
                health.tell()
                thread.join(health.every)
                if self.service.draining:
                    health.ending()
            health.close()


def _scheduler(path: str | None) -> type[Scheduler] | None:
    if path is None:
        return None
    allowed = "allowed is package.module:Class, a subclass of django_tasks.beat.Scheduler"
    try:
        found = import_string(path.replace(":", "."))
    except ImportError as error:
        raise CommandError(f"--scheduler {path}: {error}; {allowed}") from error
    if not (isinstance(found, type) and issubclass(found, Scheduler)):
        raise CommandError(f"--scheduler {path}: that is {found!r}; {allowed}")
    return found
