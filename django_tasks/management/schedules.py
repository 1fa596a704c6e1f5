"""The verb of ``manage.py tasks`` about periodic tasks: sync-schedules."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ..beat import sync
from ..periodic.entries import problems
from ..utils.log import escape

#: Exit code.
PROBLEM = 1

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
}


class ScheduleVerbs:
    """Part of the command ``tasks``, which parses, shows and delegates."""

    say: Callable[[Namespace, dict[str, Any], str], None]

    def add_schedule_verbs(self, add: Callable[[str, str], CommandParser]) -> None:
        """Declare the verb."""
        verb = add("sync-schedules", "Make periodic tasks what the code declares, as a beat does when it starts.")
        verb.add_argument("--dry-run", action="store_true", help="Only say what would be done.")

    def do_sync_schedules(self, given: Namespace) -> int:
        if wrong := problems():
            raise CommandError("\n".join(map(escape, wrong)), returncode=PROBLEM)
        found = sync.sync(dry_run=given.dry_run)
        texts = _FOUND | (_WOULD if given.dry_run else _DONE)
        lines = []
        for change in found:
            columns = f" ({', '.join(change.columns)})" if change.columns else ""
            lines.append(f"{escape(change.name)}: {texts[change.kind]}{columns}")
        data = {"dry_run": given.dry_run, "changes": [change._asdict() for change in found]}
        self.say(given, data, "\n".join(lines) or "All periodic tasks are as declared.")
        return 0
