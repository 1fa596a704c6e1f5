"""``manage.py runbeat``: send periodic tasks when they are due, until told to stop."""

from __future__ import annotations

from django_tasks import clash

clash.ensure_ours()

import signal  # noqa: E402 - PyPI's django-tasks must be found out before anything else fails
from argparse import ArgumentParser  # noqa: E402
from typing import Any  # noqa: E402

from django.core.management.base import BaseCommand, CommandError  # noqa: E402

from django_tasks.worker.beat import BeatCommand  # noqa: E402
from django_tasks.worker.start import prepare  # noqa: E402


class Command(BaseCommand):
    help = "Send periodic tasks when they are due, until told to stop. Any number of these may run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        add("-n", "--hostname", metavar="NAME", help="Node name; %%h host, %%n name, %%d domain, %%p process id.")
        add("-l", "--loglevel", default="INFO", metavar="LEVEL", help="DEBUG, INFO, WARNING, ERROR or CRITICAL.")
        add("-f", "--logfile", metavar="FILE", help="Log to this file instead of the terminal.")
        add("--pidfile", metavar="FILE", help="Write the process id here; refuse to start if a live one is there.")
        add("-S", "--scheduler", metavar="CLASS", help="A scheduler of your own: package.module:Class.")
        add("--max-interval", type=float, metavar="SECONDS", help="How long it sleeps at most.")
        add("--health-file", metavar="FILE", help="Touch this file every second, as long as the beat's loop turns.")
        add("--probe-port", metavar="[HOST:]PORT", help="Serve /livez and /readyz there.")

    def handle(self, *args: object, **options: Any) -> None:
        command = BeatCommand.from_options(options)
        if problem := prepare(needs_tasks=False):
            raise CommandError(problem, returncode=2)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: command.stop())
        command.run(self.stdout.write)
