"""The fixtures themselves: what every other test takes for granted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import OperationalError, connections, transaction

from django_tasks.backends import get_broker
from django_tasks.backends.redis import RedisBroker
from tests.database_urls import settings_from_url
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.integration.jobs import echo
from tests.servers import Server, execute

COUNT_USERS = "import django; django.setup(); from django.contrib.auth.models import User; print(User.objects.count())"


@pytest.mark.parametrize("test", ["one test", "the next one"])
def test_each_test_has_a_fresh_database_whose_rows_other_processes_see(test: str, database: TestDatabase) -> None:
    assert not User.objects.exists()
    with transaction.atomic():
        User.objects.create(username=test)
    command = [sys.executable, "-c", COUNT_USERS]
    counted = subprocess.run(command, env=database.environ(), capture_output=True, text=True, check=True)
    assert counted.stdout.strip() == "1"


@pytest.mark.databases(alias="tasks")
def test_the_database_may_have_another_alias(database: TestDatabase) -> None:
    assert settings.DJANGO_TASKS["DATABASE"] == database.alias == "tasks"
    assert not User.objects.using("tasks").exists()
    assert database.connection is connections["tasks"]


@pytest.mark.databases("redis")
@pytest.mark.parametrize("test", ["one test", "the next one"])
def test_a_redis_carries_tasks_here_and_in_other_processes_and_is_empty_at_first(
    test: str, database: TestDatabase
) -> None:
    broker = get_broker()
    assert isinstance(broker, RedisBroker)
    assert not list(broker.server.client().scan_iter(f"{broker.server.address.prefix}:*"))
    echo.delay(test)
    assert json.loads(database.environ(WORKER_LEASE=5)["TEST_DJANGO_TASKS"]) == {
        "BROKER_URL": settings.DJANGO_TASKS["BROKER_URL"],
        "WORKER_LEASE": 5,
    }


@pytest.mark.databases("postgresql", "mariadb", private=True)
def test_what_was_committed_outlives_a_crash_of_the_server(database: TestDatabase) -> None:
    assert database.server
    User.objects.create(username="committed")
    database.server.kill()
    with pytest.raises(OperationalError):
        User.objects.count()
    database.connection.close()
    database.server.start()
    assert User.objects.count() == 1
    database.connection.close()
    database.server.restart()
    assert User.objects.count() == 1


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_paused_server_answers_nobody_until_it_is_resumed(kind: str, private_server: Callable[..., Server]) -> None:
    server = private_server(kind)
    server.pause()
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", f"from tests.servers import execute; execute({server.url!r})"], timeout=1)
    server.resume()
    assert execute(server.url, "SELECT 1") == [(1,)]


@pytest.mark.django_db
def test_djangos_own_database_for_tests_works_beside_ours() -> None:
    assert not User.objects.exists()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////var/db/tasks.sqlite3", {"NAME": "/var/db/tasks.sqlite3"}),
        ("postgresql://me:p%40ss@db:5433/tasks", {"USER": "me", "PASSWORD": "p@ss", "HOST": "db", "PORT": "5433"}),
        ("postgresql://me@/tasks?host=/run/pg&sslmode=disable", {"HOST": "/run/pg", "OPTIONS": {"sslmode": "disable"}}),
        ("mysql://root@127.0.0.1:3307/tasks", {"ENGINE": "django.db.backends.mysql", "NAME": "tasks"}),
    ],
)
def test_a_url_becomes_settings(url: str, expected: dict[str, object]) -> None:
    assert settings_from_url(url).items() >= expected.items()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("oracle://host/name", "the scheme is 'oracle', allowed are sqlite, postgresql, mysql"),
        ("mysql://host/", "names no database"),
    ],
)
def test_a_bad_url_is_told(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        settings_from_url(url)


def test_eventually_returns_the_first_true_value() -> None:
    values = iter([0, None, "", "ready"])
    assert eventually(lambda: next(values)) == "ready"


def test_eventually_tells_the_last_value_when_time_is_up() -> None:
    with pytest.raises(AssertionError, match=r"no luck within 0\.05 s; the last value was 0"):
        eventually(lambda: 0, timeout=0.05, message="no luck")


def test_eventually_takes_a_failed_assertion_for_not_yet() -> None:
    def condition() -> bool:
        assert next(answers), "not yet"
        return True

    answers = iter([False, False, True])
    assert eventually(condition)
