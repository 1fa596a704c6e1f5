"""``manage.py runworker``: take tasks and run them, until told to stop."""

from __future__ import annotations

from django_tasks import clash

clash.ensure_ours()

import sys  # noqa: E402 - PyPI's django-tasks must be found out before anything else fails
from argparse import ArgumentParser  # noqa: E402
from typing import Any  # noqa: E402

from django.core.management.base import BaseCommand, CommandError  # noqa: E402
from django.utils.autoreload import get_child_arguments  # noqa: E402

from django_tasks.worker.start import WorkerCommand, prepare, watch_and_restart  # noqa: E402


class Command(BaseCommand):
    help = "Take tasks from the broker and run them, until told to stop."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        add("-Q", "--queues", nargs="+", metavar="QUEUE", help="Queues to consume, in order (default: all).")
        add("-X", "--exclude-queues", nargs="+", metavar="QUEUE", help="Queues not to consume.")
        add("-c", "--concurrency", type=int, metavar="N", help="Child processes (default: number of CPUs).")
        add("-P", "--pool", choices=("prefork", "solo"), help="How tasks run: in child processes, or in this one.")
        add("-n", "--hostname", metavar="NAME", help="Node name; %%h host, %%n name, %%d domain, %%p process id.")
        add("-l", "--loglevel", default="INFO", metavar="LEVEL", help="DEBUG, INFO, WARNING, ERROR or CRITICAL.")
        add("-f", "--logfile", metavar="FILE", help="Log to this file instead of the terminal.")
        add("--pidfile", metavar="FILE", help="Write the process id here; refuse to start if a live one is there.")
        add("--burst", action="store_true", help="Run what is due, then exit.")
        add("--shutdown-timeout", type=float, metavar="SECONDS", help="How long SIGTERM waits for running tasks.")
        add("--max-tasks-per-child", type=int, metavar="N", help="Replace a child after so many tasks.")
        add("--max-memory-per-child", type=int, metavar="KIB", help="Replace a child that holds more memory.")
        add("--prefetch-multiplier", type=int, metavar="N", help="Most tasks a child claims at a time.")
        add("--autoreload", "--reload", action="store_true", help="Restart when code changes (development).")

    def handle(self, *args: object, **options: Any) -> None:
        command = WorkerCommand.from_options(options)
        if options["autoreload"]:
            arguments = [word for word in get_child_arguments() if word not in ("--autoreload", "--reload")]
            sys.exit(watch_and_restart(arguments))
        if problem := prepare():
            raise CommandError(problem, returncode=2)
        sys.exit(command.run(self.stdout.write))
