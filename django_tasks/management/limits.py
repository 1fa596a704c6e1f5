"""The verbs of ``manage.py tasks`` about limits: pause, resume, limits."""

from __future__ import annotations

import getpass
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from .. import limits
from ..models import Limit
from ..utils.log import escape

#: Exit codes.
PROBLEM, USAGE = 1, 2

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class LimitVerbs:
    """Part of the command ``tasks``, which parses, shows and delegates."""

    stdout: Any
    say: Callable[[Namespace, dict[str, Any], str], None]
    tell: Callable[[Any], None]
    table: Callable[[Sequence[str], Sequence[dict[str, Any]]], None]

    def add_limit_verbs(self, add: Callable[[str, str], CommandParser]) -> None:
        """Declare the verbs."""
        verb = add("pause", "Let nothing of a queue or a task start any more; what runs goes on.")
        _add_target(verb)
        verb.add_argument("--reason", default="", metavar="TEXT", help="Why, for others to see.")
        verb.add_argument("--until", type=_end, metavar="TIME", help="Ends by itself: 30m, 2h, 7d, or ISO 8601.")

        _add_target(add("resume", "End a pause."))

        add("limits", "Show the limits and pauses there are, and what they let through and hold back.")

    def do_pause(self, given: Namespace) -> int:
        kind, name = _target(given)
        try:
            limit = limits.pause(kind, name, by=_user(), reason=given.reason, until=given.until)
        except ValueError as error:
            raise CommandError(escape(error), returncode=USAGE) from error
        data = {"kind": kind, "name": name, "paused_until": limit.paused_until, "reason": limit.pause_reason}
        end = f" until {timezone.localtime(limit.paused_until):%Y-%m-%d %H:%M:%S}" if limit.paused_until else ""
        self.say(given, data, f"The {kind} {escape(name)} is paused{end}.")
        return 0

    def do_resume(self, given: Namespace) -> int:
        kind, name = _target(given)
        try:
            resumed = limits.resume(kind, name)
        except ValueError as error:
            raise CommandError(escape(error), returncode=USAGE) from error
        text = "goes on" if resumed else "was not paused"
        self.say(given, {"kind": kind, "name": name, "resumed": resumed}, f"The {kind} {escape(name)} {text}.")
        return 0 if resumed else PROBLEM

    def do_limits(self, given: Namespace) -> int:
        rows = [asdict(one) for one in limits.overview()]
        if given.json:
            self.tell({"limits": rows, "counted_to": limits.COUNT_LIMIT})
            return 0
        for row in rows:
            row["says"] = _says(row)
        self.table(("kind", "name", "says", "running", "waiting"), rows)
        return 0


def _says(row: dict[str, Any]) -> str:
    """Return a limit in words."""
    each = " per key" if row["per_key"] else ""
    said = []
    if row["rate"]:
        said.append(f"rate {row['rate']}{' per worker' if row['per_worker'] else ''}{each}")
    if row["concurrency"] is not None:
        said.append(f"at most {row['concurrency']} at a time{each}")
    if row["fair"]:
        said.append("keys take turns")
    if row["overridden"]:
        said.append("changed by people")
    if row["paused"]:
        end = f" until {timezone.localtime(row['paused_until']):%Y-%m-%d %H:%M}" if row["paused_until"] else ""
        by, why = (
            f" {word} {row[key]}" if row[key] else "" for word, key in (("by", "paused_by"), ("for", "pause_reason"))
        )
        said.append(f"paused{end}{by}{why}")
    return ", ".join(said)


def _add_target(verb: CommandParser) -> None:
    verb.add_argument("queue", nargs="?", metavar="QUEUE", help="The queue's name.")
    verb.add_argument("--task", metavar="NAME", help="A task's registered name, instead of a queue.")


def _target(given: Namespace) -> tuple[str, str]:
    if bool(given.queue) == bool(given.task):
        raise CommandError("Name a queue, or a task with --task NAME.", returncode=USAGE)
    return (Limit.TASK, given.task) if given.task else (Limit.QUEUE, given.queue)


def _end(text: str) -> datetime | timedelta:
    number, unit = text[:-1], text[-1:]
    if number.isdecimal() and unit in _UNITS and len(number) <= 6:
        return timedelta(**{_UNITS[unit]: int(number)})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r}; allowed: 30m, 2h, 7d, or a moment in ISO 8601") from None
    return moment if moment.tzinfo else timezone.make_aware(moment)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return ""
