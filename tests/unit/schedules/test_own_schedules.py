"""A schedule of one's own: what it must tell, and what it then has."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from django_tasks.schedules import NEVER_CHECK_TIMEOUT, BaseSchedule, clocked, cron, crontab, schedule, solar

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


class fibonacci(BaseSchedule):
    """1, 2, 3, 5, 8, … hours after noon, until it gets too late."""

    def next_after(self, moment: datetime) -> datetime | None:
        hours, following = 1, 2
        while hours < 50:
            if (run := NOON + timedelta(hours=hours)) > moment:
                return run
            hours, following = following, hours + following
        return None


def test_one_that_tells_its_next_run_has_all_that_celerys_have() -> None:
    each = fibonacci(nowfun=lambda: NOON + timedelta(hours=4))
    assert each.is_due(NOON + timedelta(hours=3)) == (False, 3600)
    assert each.is_due(NOON + timedelta(hours=2)) == (True, 3600)
    assert each.remaining_estimate(NOON) == timedelta(hours=-3)


def test_one_that_has_come_to_its_end_is_not_due_and_asked_again_in_years() -> None:
    each = fibonacci(nowfun=lambda: NOON + timedelta(days=9))
    assert each.is_due(NOON + timedelta(hours=34)) == (False, NEVER_CHECK_TIMEOUT)
    assert each.is_due(NOON + timedelta(hours=21)) == (True, NEVER_CHECK_TIMEOUT)


def test_one_without_a_next_run_cannot_be_made() -> None:
    class silent(BaseSchedule):
        pass

    with pytest.raises(TypeError, match="next_after"):
        silent()  # type: ignore[abstract]


def test_one_that_only_overrides_what_celery_asks_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match=r"holidays overrides is_due and not next_after, which decides here"):

        class holidays(crontab):
            def is_due(self, last_run_at: datetime) -> None:  # type: ignore[override]
                raise AssertionError

    class workdays(crontab):
        """May add what it likes, and override both."""

        def is_due(self, last_run_at: datetime) -> None:  # type: ignore[override]
            raise AssertionError

        def next_after(self, moment: datetime) -> datetime | None:
            run = super().next_after(moment)
            while run is not None and run.date().isoformat() == "2026-12-25":
                run = super().next_after(run)
            return run

    christmas_eve = datetime(2026, 12, 24, 12, tzinfo=UTC)
    assert workdays(0, 9).next_after(christmas_eve) == datetime(2026, 12, 26, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    "each",
    [schedule(60), schedule(3600, relative=True), crontab("*/5"), cron("@hourly"), solar("sunset", 0, 0)],
    ids=str,
)
def test_all_go_on_strictly_after_the_moment_in_utc(each: BaseSchedule) -> None:
    run: datetime | None = NOON
    for _ in range(50):
        assert run is not None
        following = each.next_after(run)
        assert following is not None
        assert following > run
        assert following.tzinfo is UTC
        run = following


def test_no_schedule_equals_one_of_another_kind() -> None:
    kinds = [schedule(60), crontab(), cron("* * * * *"), solar("sunset", 0, 0), clocked(NOON), fibonacci()]
    assert all((one == other) is (one is other) for one in kinds for other in kinds)


def test_schedules_need_no_apps_and_no_database() -> None:
    code = """
from django.conf import settings
settings.configure(TIME_ZONE="Asia/Tokyo")
from django_tasks.schedules import crontab
from datetime import UTC, datetime
print(crontab(0, 12).next_after(datetime(2026, 1, 1, tzinfo=UTC)))
from django.apps import apps
import sys
assert not apps.ready
assert not {"django.db.models", "celery", "ephem"} & set(sys.modules), "imported"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2026-01-01 03:00:00+00:00\n"
