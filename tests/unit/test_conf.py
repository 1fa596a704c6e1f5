from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_tasks import addresses, states
from django_tasks.conf import Settings, check_settings, settings


def with_settings(**given: Any) -> override_settings:
    return override_settings(DJANGO_TASKS=given)


def problem(**given: Any) -> str:
    """Return the only problem of these settings, which reading any of them raises, too."""
    with with_settings(**given):
        [found] = check_settings()
        with pytest.raises(ImproperlyConfigured) as caught:
            _ = settings.TASK_DEFAULT_QUEUE
        assert str(caught.value) == found
        return found


def test_every_default_is_valid_and_documented() -> None:
    with with_settings():
        assert check_settings() == []
        for name, setting in Settings.table().items():
            assert setting.name == name == name.upper()
            assert re.fullmatch(r"[A-Z].*[.]", setting.doc)
            assert hasattr(settings, name)


@pytest.mark.parametrize("key", ["TASK_DEFAULT_QUEUE", "task_default_queue", "Task_Default_Queue"])
def test_a_key_may_be_in_any_case(key: str) -> None:
    with with_settings(**{key: "mail"}):
        assert settings.TASK_DEFAULT_QUEUE == "mail"


def test_a_changed_setting_is_seen_at_once_and_undone_after() -> None:
    before = settings.TASK_DEFAULT_PRIORITY
    with with_settings(TASK_DEFAULT_PRIORITY=7):
        assert settings.TASK_DEFAULT_PRIORITY == 7
        with with_settings(TASK_DEFAULT_PRIORITY=-7):
            assert settings.TASK_DEFAULT_PRIORITY == -7
        assert settings.TASK_DEFAULT_PRIORITY == 7
    assert before == settings.TASK_DEFAULT_PRIORITY


def test_a_read_value_is_a_plain_attribute() -> None:
    with with_settings():
        assert settings.PAYLOAD_LIMIT == 1_048_576
        assert vars(settings).keys() == Settings.table().keys()


def test_the_dict_itself_may_be_left_out() -> None:
    with override_settings():
        from django.conf import settings as django_settings

        del django_settings.DJANGO_TASKS
        assert check_settings() == []


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"TASK_DEFAULT_PRIORITY": "high"}, "DJANGO_TASKS['TASK_DEFAULT_PRIORITY'] is 'high'; allowed: a whole"),
        ({"TASK_DEFAULT_PRIORITY": 101}, "is 101; allowed: a whole number from -100 to 100."),
        ({"TASK_DEFAULT_PRIORITY": True}, "is True; allowed: a whole number"),
        ({"TASK_ALWAYS_EAGER": 1}, "is 1; allowed: True or False."),
        ({"TASK_DEFAULT_QUEUE": "a queue"}, "is 'a queue'; allowed: 1 to 64 of the characters"),
        ({"TASK_DEFAULT_QUEUE": "q" * 65}, "allowed: 1 to 64"),
        ({"TASK_DEFAULT_QUEUE": "q\n"}, r"is 'q\n'; allowed"),
        ({"DATABASE": "task"}, "is 'task'; allowed: an alias of DATABASES. DATABASES has default."),
        ({"WORKER_POOL": "gevent"}, "allowed: None (prefork where the system can fork, else solo) or 'prefork'"),
        ({"WORKER_CONCURRENCY": 0}, "allowed: None (one for each CPU) or a whole number from 1."),
        ({"WORKER_HEARTBEAT_INTERVAL": "5"}, "allowed: a number of seconds from 0.1, or a timedelta."),
        ({"WORKER_SHUTDOWN_TIMEOUT": float("nan")}, "is nan; allowed: a number of seconds"),
        ({"WORKER_LEASE": 9, "WORKER_HEARTBEAT_INTERVAL": 5}, "is 9; allowed: at least twice WORKER_HEARTBEAT"),
        ({"ACCEPT_CONTENT": "json"}, "is 'json'; allowed: a list, not empty,"),
        ({"ACCEPT_CONTENT": []}, "is []; allowed: a list, not empty,"),
        ({"IMPORTS": "shop.jobs"}, "is 'shop.jobs'; allowed: a list of dotted module names."),
        ({"IMPORTS": ["shop/jobs.py"]}, "allowed: a list of dotted module names."),
        ({"PAYLOAD_LIMIT": 0}, "allowed: a whole number from 1024."),
        ({"TASK_ROUTES": 5}, "allowed: None, a dict, a list, a callable or the dotted path of one."),
        ({"TASK_PUBLISH_RETRY_POLICY": {"max_retrys": 1}}, "has no key 'max_retrys'. Did you mean 'max_retries'?"),
        ({"TASK_STORE_ERRORS_EVEN_IF_IGNORED": False}, "allowed: True: failures are always kept here."),
        ({"RESULT_EXPIRES": "1 day"}, "allowed: None (for ever), seconds, a timedelta, or a dict"),
        ({"RESULT_EXPIRES": -1}, "is -1; allowed:"),
        ({"RESULT_EXPIRES": {"SUCESS": 1}}, "SUCESS is no final state."),
        ({"TASK_SERIALIZER": "JSON!"}, "allowed: the name of a registered serializer"),
        ({"BROKER_URL": "redis://:secret@host/x"}, "is 'redis://…'; allowed: 'database://', redis:// or rediss://"),
        ({"BROKER_URL": "redis://:secret@host/x"}, "The database must be a number, not 'x'."),
        ({"BROKER_URL": "redis://host/0?password=secret"}, "no parameter 'password' (it belongs before the @)"),
        ({"BROKER_URL": "redis://one,two/0"}, "It names several hosts: that is for sentinel:// and redis-cluster://."),
        ({"BROKER_URL": "redis-cluster://one/1"}, "A cluster has database 0 only."),
        ({"BROKER_URL": "sentinel://one"}, "The service that the Sentinels watch is missing"),
        ({"BROKER_URL": "unix://host/run/redis.sock"}, "A socket is named by its path"),
        ({"BROKER_URL": "rediss://host/0?ssl_cert_reqs=maybe"}, "ssl_cert_reqs must be required, optional or none."),
        ({"BROKER_URL": "redis://host/0?prefix=a b"}, "prefix must be 1 to 64 of the characters"),
        ({"BROKER_URL": "redis://host/0?tls=maybe"}, "tls must be 1 or 0, not 'maybe'."),
        ({"BROKER_URL": "sqla+sqlite:///secret"}, "sqla+sqlite:// is not available in this version."),
        ({"BROKER_URL": "database"}, "is 'database'; allowed: 'database://', redis://"),
        ({"BROKER_URL": "me:secret@host"}, "is '…'; allowed: 'database://', redis://"),
        ({"BROKER_URL": 5}, "is 5; allowed: 'database://', redis://"),
        ({"BROKER_CONNECTION_TIMEOUT": 0}, "allowed: a number of seconds from 0.1, or a timedelta."),
        ({"RESULT_BACKEND": "rpc://secret"}, "is 'rpc://…'; allowed: 'database', redis://"),
        ({"RESULT_STORAGE_THRESHOLD": -1}, "is -1; allowed: a whole number from 0."),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_what_is_allowed(given: dict[str, Any], text: str) -> None:
    found = problem(**given)
    assert text in found
    assert "secret" not in found


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("TASK_ROUTS", "DJANGO_TASKS has no setting 'TASK_ROUTS'. Did you mean 'TASK_ROUTES'?"),
        ("CELERY_TASK_ROUTES", "Write 'TASK_ROUTES', without 'CELERY_'."),
        ("CELERY_ALWAYS_EAGER", "Its name is 'TASK_ALWAYS_EAGER' now."),
        ("CELERYD_CONCURRENCY", "Its name is 'WORKER_CONCURRENCY' now."),
        ("CELERY_RESULT_BACKEND", "Write 'RESULT_BACKEND', without 'CELERY_'."),
        ("RESULT_BACKEND_TRANSPORT_OPTIONS", "What RESULT_BACKEND needs to know stands in its URL"),
        ("BROKER_HEARTBEAT", "Tasks are carried by the database"),
        ("BROKER_URI", "Did you mean 'BROKER_URL'?"),
        ("CASSANDRA_SERVERS", "Results are kept in"),
        ("TIMEZONE", "Django's TIME_ZONE and USE_TZ count"),
        ("CELERY_TASK_ANNOTATIONS", "Celery has it; it is not available in this version."),
        ("BEAT_SYNC_EVERY", "Schedules are rows of the database"),
        ("BEAT_CRON_STARTING_DEADLINE", "Each periodic task has grace_seconds"),
        ("TASK_CREATE_MISSING_QUEUES", "Queues need no declaration"),
        ("QQQ", "DJANGO_TASKS has no setting 'QQQ'."),
        (5, "DJANGO_TASKS has no setting 5."),
    ],
)
def test_an_unknown_key_is_answered_with_what_to_write(key: Any, text: str) -> None:
    with override_settings(DJANGO_TASKS={key: 1}):
        [found] = check_settings()
    assert text.rstrip(", ") in found


def test_all_problems_are_told_at_once() -> None:
    with with_settings(TASK_ROUTS={}, WORKER_LEASE="long", PAYLOAD_LIMIT=1):
        assert len(check_settings()) == 3
        with pytest.raises(ImproperlyConfigured, match=r"(?s)TASK_ROUTS.*PAYLOAD_LIMIT.*WORKER_LEASE"):
            _ = settings.IMPORTS


def test_a_key_given_twice_is_refused() -> None:
    assert "twice" in problem(TASK_ALWAYS_EAGER=True, task_always_eager=False)


def test_the_dict_must_be_a_dict() -> None:
    with override_settings(DJANGO_TASKS=["TASK_ALWAYS_EAGER"]):
        assert check_settings() == ["DJANGO_TASKS is ['TASK_ALWAYS_EAGER']; allowed: a dict."]


def test_a_misspelled_attribute_is_an_attribute_error_with_a_hint() -> None:
    with pytest.raises(AttributeError, match="Did you mean 'TASK_ROUTES'"):
        getattr(settings, "TASK_ROUTS")  # noqa: B009 - not a constant for the type checker


def test_results_are_kept_by_final_state() -> None:
    day = timedelta(days=1)
    with with_settings():
        assert settings.RESULT_EXPIRES.keys() == states.FINISHED
        assert settings.RESULT_EXPIRES["SUCCESS"] == 7 * day
        assert settings.RESULT_EXPIRES["FAILURE"] == 30 * day
        assert settings.RESULT_EXPIRES["REVOKED"] == 7 * day
    for value in (3600, 3600.0, timedelta(hours=1)):
        with with_settings(RESULT_EXPIRES=value):
            assert set(settings.RESULT_EXPIRES.values()) == {timedelta(hours=1)}
    for for_ever in (None, 0):
        with with_settings(RESULT_EXPIRES=for_ever):
            assert set(settings.RESULT_EXPIRES.values()) == {None}
    with with_settings(RESULT_EXPIRES={"success": 60, "failure": None}):
        kept = settings.RESULT_EXPIRES
        assert (kept["SUCCESS"], kept["FAILURE"], kept["REVOKED"]) == (timedelta(minutes=1), None, 7 * day)
    with with_settings(RESULT_EXPIRES={"SUCCESS": 60, "default": day}):
        assert settings.RESULT_EXPIRES["FAILURE"] == day


def test_values_come_in_one_form() -> None:
    with with_settings(WORKER_LEASE=timedelta(minutes=1), ACCEPT_CONTENT={"json"}, IMPORTS=["a.b", "c"]):
        assert settings.WORKER_LEASE == 60.0
        assert settings.ACCEPT_CONTENT == ("json",)
        assert settings.IMPORTS == ("a.b", "c")
    with with_settings(TASK_PUBLISH_RETRY_POLICY={"max_retries": 1}):
        assert settings.TASK_PUBLISH_RETRY_POLICY["interval_max"] == 0.2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://", "redis://localhost:6379/0"),
        ("redis://:s%40cret@host/2", "redis://:***@host:6379/2"),
        ("valkeys://me:secret@[::1]:7/0", "rediss://me:***@[::1]:7/0"),
        ("redis://host/?db=3&cluster=0", "redis://host:6379/3"),
        ("unix://me:secret@/run/redis.sock?db=1", "unix://me:***@/run/redis.sock?db=1"),
        ("sentinel://:secret@one,two:1/tasks?sentinel_password=secret", "sentinel://:***@one:26379,two:1/tasks"),
        ("redis://:secret@one/0?cluster=1", "redis-cluster://:***@one:6379"),
        ("database://", "database://"),
        ("", "database://"),
        ("redis://:secret@host/x", "redis://…"),
    ],
)
def test_a_broker_is_shown_without_its_secrets(url: str, shown: str) -> None:
    """S16"""
    assert addresses.masked(url) == shown
    if shown not in ("redis://…", "database://"):
        address = addresses.parse(url)
        assert "secret" not in f"{address!r} {address}"
