"""The verbs of ``manage.py tasks`` about periodic tasks: sync-schedules, copy-celery-beat."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections

from ..beat import copying, sync
from ..periodic.entries import problems
from ..registry import autodiscover
from ..task_names import of_workers
from ..utils.log import escape

#: Exit codes.
PROBLEM, USAGE = 1, 2

_DONE = {
    sync.CREATED: "created",
    sync.UPDATED: "follows the code",
    sync.GONE: "switched off, since the code does not declare it any more",
    sync.BACK: "switched on again, since the code declares it again",
}
_WOULD = {
    sync.CREATED: "would be created",
    sync.UPDATED: "would follow the code",
    sync.GONE: "would be switched off, since the code does not declare it any more",
    sync.BACK: "would be switched on again, since the code declares it again",
}
_FOUND = {
    sync.DRIFTED: "was changed by people, which stays",
    sync.TAKEN: "was made by people: the code's entry of this name is left out",
    sync.BROKEN: "was broken by people, and stays so until somebody mends it",
}

_COPIES = {copying.COPIED: "copied", copying.LEFT: "left", copying.REFUSED: "cannot be kept"}


class ScheduleVerbs:
    """Part of the command ``tasks``, which parses, shows and delegates."""

    say: Callable[[Namespace, dict[str, Any], str], None]

    def add_schedule_verbs(self, add: Callable[[str, str], CommandParser]) -> None:
        """Declare the verbs."""
        verb = add("sync-schedules", "Make periodic tasks what the code declares, as a beat does when it starts.")
        verb.add_argument("--dry-run", action="store_true", help="Only say what would be done.")
        verb = add("copy-celery-beat", "Copy django-celery-beat's periodic tasks; names that are taken are left alone.")
        verb.add_argument("--from-database", metavar="ALIAS", help="Where its tables are (default: where tasks are).")
        verb.add_argument("--disabled", action="store_true", help="Switch the copies off.")
        verb.add_argument("--dry-run", action="store_true", help="Only say what would be done.")

    def do_sync_schedules(self, given: Namespace) -> int:
        if wrong := problems(lambda: of_workers().workers):
            raise CommandError("\n".join(map(escape, wrong)), returncode=PROBLEM)
        found = sync.sync(dry_run=given.dry_run)
        texts = _FOUND | (_WOULD if given.dry_run else _DONE)
        lines = []
        for change in found:
            columns = f" ({escape(', '.join(change.columns))})" if change.columns else ""
            lines.append(f"{escape(change.name)}: {texts[change.kind]}{columns}")
        data = {"dry_run": given.dry_run, "changes": [change._asdict() for change in found]}
        self.say(given, data, "\n".join(lines) or "All periodic tasks are as declared.")
        return 0

    def do_copy_celery_beat(self, given: Namespace) -> int:
        if given.from_database is not None and given.from_database not in connections:
            allowed = ", ".join(connections)
            raise CommandError(f"--from-database {given.from_database!r}: allowed are {allowed}", returncode=USAGE)
        autodiscover()
        try:
            found = copying.copy_rows(given.from_database, disabled=given.disabled, dry_run=given.dry_run)
        except LookupError as error:
            raise CommandError(str(error), returncode=PROBLEM) from error
        texts = {**_COPIES, copying.COPIED: "would be copied"} if given.dry_run else _COPIES
        lines = [f"{escape(one.name)}: {texts[one.kind]}{f': {escape(one.why)}' * bool(one.why)}" for one in found]
        data = {"dry_run": given.dry_run, "copies": [one._asdict() for one in found]}
        self.say(given, data, "\n".join(lines) or "django-celery-beat has no periodic tasks.")
        return PROBLEM if any(one.kind == copying.REFUSED for one in found) else 0
