"""The verb of ``manage.py tasks`` that moves from one broker to another: migrate-broker."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError, CommandParser

from .. import addresses
from ..backends import mover
from ..conf import settings
from ..exceptions import OperationalError
from ..utils.log import escape

#: Exit codes.
PROBLEM, USAGE, INTERRUPTED = 1, 2, 130


class BrokerVerbs:
    """Part of the command ``tasks``, which parses, shows and delegates."""

    stdout: Any
    tell: Callable[[Any], None]

    def add_broker_verbs(self, add: Callable[[str, str], CommandParser]) -> None:
        """Declare the verb."""
        verb = add("migrate-broker", "Move what waits from one broker to another, while both are in use.")
        what = "database://, the URL of a Redis without a password, env:NAME for the URL in that variable, or settings"
        verb.add_argument("source", metavar="FROM", help=f"Where from: {what} for BROKER_URL.")
        verb.add_argument("target", metavar="TO", help="Where to, written in the same way.")
        verb.add_argument("--once", action="store_true", help="Move what is there, and end; no worker may be running.")

    def do_migrate_broker(self, given: Namespace) -> int:
        source, target = _url("FROM", given.source), _url("TO", given.target)
        try:
            moving = mover(source, target)
        except ValueError as error:
            raise CommandError(str(error), returncode=USAGE) from error
        said: list[Any] = []

        def tell(progress: Any) -> None:
            if not given.json and (not said or said[-1] != progress):
                said.append(progress)
                self.stdout.write(
                    f"{progress.taken:,} taken, {progress.put:,} put; workers: {progress.old_workers} of FROM, "
                    f"{progress.new_workers} of TO"
                )

        try:
            moving.open()
            if not given.json:
                where = addresses.masked(target)
                self.stdout.write(f"Ready: now start workers and senders with BROKER_URL {where}, and stop the others.")
            done = moving.move() if given.once else moving.run(tell)
        except OperationalError as error:
            raise CommandError(f"{escape(error)}. Start it again to go on.", returncode=PROBLEM) from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted. Start it again to go on.", returncode=INTERRUPTED) from None
        finally:
            moving.close()
        if given.json:
            self.tell({"taken": done.taken, "put": done.put})
        else:
            self.stdout.write(f"Done: {done.taken:,} were taken out of FROM, {done.put:,} put into TO.")
        return 0


def _url(name: str, word: str) -> str:
    variable = word.removeprefix("env:")
    if variable != word:
        if variable not in os.environ:
            raise CommandError(f"{name}: the environment has no variable {escape(variable)}", returncode=USAGE)
        word = os.environ[variable]
    elif word == "settings":
        word = settings.BROKER_URL
    if addresses.is_database(word):
        return addresses.DATABASE
    try:
        addresses.parse(word)
    except ValueError as error:
        problem = str(error) or f"is {addresses.scheme_of(word) or 'no URL'!r}"
        raise CommandError(f"{name}: {problem} Allowed: {addresses.ALLOWED}.", returncode=USAGE) from error
    return word
