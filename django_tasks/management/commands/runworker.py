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
        add("-c", "--concurrency", type=int, metavar="N", help="Tasks at the same time (default: number of CPUs).")
        pool = "How tasks run: prefork, threads, asyncio or solo; KIND:QUEUE,…=N, repeated, for several pools."
        add("-P", "--pool", action="append", metavar="POOL", help=pool)
        autoscale = "Between MIN (default: 1) and MAX child processes, as many as there is work for."
        add("--autoscale", metavar="MAX,MIN", help=autoscale)
        add("-n", "--hostname", metavar="NAME", help="Node name; %%h host, %%n name, %%d domain, %%p process id.")
        add("-l", "--loglevel", default="INFO", metavar="LEVEL", help="DEBUG, INFO, WARNING, ERROR or CRITICAL.")
        add("-f", "--logfile", metavar="FILE", help="Log to this file instead of the terminal.")
        add("--pidfile", metavar="FILE", help="Write the process id here; refuse to start if a live one is there.")
        add("--burst", action="store_true", help="Run what is due, then exit.")
        add("-B", "--beat", action="store_true", help="Send periodic tasks, too, as runbeat does.")
        add("--shutdown-timeout", type=float, metavar="SECONDS", help="How long SIGTERM waits for running tasks.")
        add("--time-limit", type=float, metavar="SECONDS", help="End a task that takes longer, as FAILURE.")
        add("--soft-time-limit", type=float, metavar="SECONDS", help="Raise SoftTimeLimitExceeded in it after that.")
        add("--max-tasks-per-child", type=int, metavar="N", help="Replace a child after so many tasks.")
        add("--max-memory-per-child", type=int, metavar="KIB", help="Replace a child that holds more memory.")
        add("--prefetch-multiplier", type=int, metavar="N", help="Most tasks a child claims at a time.")
        add("--health-file", metavar="FILE", help="Touch this file every second, as long as the worker's loops turn.")
        add("--probe-port", metavar="[HOST:]PORT", help="Serve /livez and /readyz there.")
        add("--autoreload", "--reload", action="store_true", help="Restart when code changes (development).")

    def handle(self, *args: object, **options: Any) -> None:
        command = WorkerCommand.from_options(options)
        if options["autoreload"]:
            arguments = [word for word in get_child_arguments() if word not in ("--autoreload", "--reload")]
            sys.exit(watch_and_restart(arguments))
        if problem := prepare():
            raise CommandError(problem, returncode=2)
        sys.exit(command.run(self.stdout.write))
