"""What is known of beats: a row for each start of one, renewed as long as it works; and what is forgotten in time."""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime, timedelta

from ..backends import get_broker
from ..conf import settings
from ..dashboard import database_now
from ..models import Beat, PeriodicRun
from ..querysets import DatabaseNow

logger = logging.getLogger("django_tasks.beat")

#: Seconds between two signs of life, and two rounds of tidying.
SEEN_EVERY = 5.0
TIDY_EVERY = 60.0
#: Seconds between two looks for pings: who asks by the command line waits for twice as long unless told otherwise.
ANSWER_EVERY = 1.0
#: After which time a beat that stopped, or was lost, is forgotten.
FORGET_AFTER = timedelta(days=1)
#: Rows deleted at a time, and seconds after which the rest waits for the next round.
BATCH, TIDY_FOR = 1_000, 1.0


class Presence:
    """The row of this start of a beat."""

    def __init__(self, name: str, hostname: str, pid: int, version: str) -> None:
        self._about = {"name": name, "hostname": hostname, "pid": pid, "version": version}
        self._key: int | None = None
        #: Another beat of this name was told of.
        self._has_namesake = False
        self._seen = self._tidied = self._answered = float("-inf")

    def tell(self, *, sent: int, late: float) -> None:
        """Give a sign of life, if it is time for one; ``late`` in seconds."""
        if time.monotonic() - self._seen < SEEN_EVERY:
            return
        numbers = {"sent": sent, "late": late}
        rows = Beat.objects.filter(pk=self._key)
        if self._key is None or not rows.update(seen_at=DatabaseNow(), **numbers):
            now = database_now()
            self._key = Beat.objects.create(**self._about, started_at=now, seen_at=now, **numbers).pk
        self._seen = time.monotonic()

    def answer(self) -> None:
        """Answer those who ping this beat, if it is time to look."""
        if self._key is None or time.monotonic() - self._answered < ANSWER_EVERY:
            return
        get_broker().answer_pings(self._key, json.dumps({"ok": "pong"}))
        self._answered = time.monotonic()

    def tidy(self) -> None:
        """Forget old runs, old beats and what was asked of them, if it is time to; a part of them if there are many."""
        if time.monotonic() - self._tidied < TIDY_EVERY:
            return
        now, end = database_now(), time.monotonic() + TIDY_FOR
        if self._tidied > float("-inf"):  # before that, one that was killed and started anew would meet itself
            self._look_for_a_namesake(now)
        Beat.objects.filter(seen_at__lt=now - FORGET_AFTER).delete()
        get_broker().prune_commands()
        lifetime = settings.BEAT_RUNS_EXPIRE
        while lifetime is not None and time.monotonic() < end:
            old = PeriodicRun.objects.filter(created_at__lt=now - timedelta(seconds=lifetime)).order_by("created_at")
            keys = list(old.values_list("pk", flat=True)[:BATCH])
            PeriodicRun.objects.filter(pk__in=keys).delete()
            if len(keys) < BATCH:
                break
        self._tidied = time.monotonic()

    def _look_for_a_namesake(self, now: datetime) -> None:
        others = Beat.objects.filter(name=self._about["name"], stopped_at=None).exclude(pk=self._key)
        other = next((beat for beat in others if beat.status(now) == "online"), None)
        if other is not None and not self._has_namesake:
            logger.warning(
                "Another beat is called %s: process %d on %s. Who asks for it by its name cannot tell them apart: give "
                "each one of its own, as runbeat -n beat.%%p@%%h does.",
                *(other.name, other.pid, other.hostname),
            )
        self._has_namesake = other is not None

    def leave(self) -> None:
        """It stops, in order."""
        if self._key is not None:
            Beat.objects.filter(pk=self._key).update(stopped_at=database_now())
