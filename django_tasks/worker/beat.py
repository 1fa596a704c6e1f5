"""From a command line to a running beat: options, log, process id file and health are those of a worker."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
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

logger = logging.getLogger("django_tasks.beat")

#: Seconds between two wake-ups that the command line may ask for, at least.
SHORTEST_INTERVAL = 0.1
#: Seconds that the beat may go on with what it is at once it was told to stop; told again, it may not.
GRACE = 10.0
#: Seconds between two looks whether it was told to stop, at most.
LOOK = 1.0
#: The exit code of a beat that did not end by itself.
STUCK = 70


@dataclass(slots=True)
class BeatCommand:
    """A ``runbeat`` command line, checked."""

    name: str
    loglevel: str
    logfile: str | None
    pidfile: str | None
    health_file: str | None
    probe: tuple[str, int] | None
    service: Service
    grace: float = GRACE

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

    def stop(self) -> None:
        """End the beat after what it is at; the second time, at once. Safe in a signal handler."""
        if self.service.draining:
            self.grace = 0.0
        self.service.stop()

    def run(self, say: Callable[[str], Any]) -> None:
        """Run the beat until it is stopped. One that is stuck ends the process."""
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
            told = None
            while thread.is_alive():
                health.main_turned()
                health.tell()
                if self.service.draining:
                    if told is None:
                        told = time.monotonic()
                        logger.info("beat: Stopping...")
                        health.ending()
                    if time.monotonic() - told >= self.grace:
                        break
                thread.join(min(health.every, LOOK))
            health.close()
        if thread.is_alive():
            self._give_up()

    def _give_up(self) -> None:
        why = f"within {GRACE:g} s" if self.grace else "before it was told so again"
        logger.error("beat: Did not stop %s. What it has not committed is undone, and sent by the next one.", why)
        logging.shutdown()
        sys.stdout.flush()
        os._exit(STUCK)  # whatever it waits for, a thread pool, say, the interpreter would wait for as well


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
