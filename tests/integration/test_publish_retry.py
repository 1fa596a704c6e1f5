"""``retry_policy`` of a call, against a database that cannot be reached."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError as DatabaseOperationalError
from django.db import connections
from django.test import override_settings

from django_tasks import models, shared_task
from django_tasks.exceptions import OperationalError
from tests.databases import TestDatabase, attached
from tests.eventually import eventually

#: Seconds that a machine with other things to do may add.
SLACK = 2.0


@shared_task
def noop() -> None:
    pass


@contextmanager
def refusing(alias: str) -> Iterator[list[float]]:
    """Let an alias lead to a server that hangs up on everybody; give the moments of their calls."""
    calls: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            while True:
                try:
                    caller, _ = listening.accept()
                except OSError:
                    return
                calls.append(time.monotonic())
                caller.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        url = f"postgresql://nobody@127.0.0.1:{port}/nothing?sslmode=disable&gssencmode=disable"
        with attached(alias, url):
            yield calls
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def tries(calls: list[float], **options: Any) -> int:
    """Send until it is given up; return how often the server was called."""
    before = len(calls)
    with pytest.raises(OperationalError, match="could not be stored"):
        noop.apply_async(**options)
    return len(calls) - before


@pytest.mark.databases("postgresql")
def test_a_policy_says_how_often_and_how_fast_it_is_tried(database: TestDatabase) -> None:
    with refusing(database.alias) as calls:
        assert tries(calls, retry=False) == 1
        assert tries(calls, retry_policy={"max_retries": 0}) == 1
        assert tries(calls, retry_policy={"max_retries": 2, "interval_step": 0}) == 3
        assert tries(calls) == 4
        assert tries(calls, task_id="own") == 4
        calls.clear()
        policy = {"max_retries": 4, "interval_start": 0.2, "interval_step": 0.3, "interval_max": 0.6}
        assert tries(calls, retry_policy=policy) == 5
    waits = [later - earlier for earlier, later in itertools.pairwise(calls)]
    for wait, wanted in zip(waits, (0.2, 0.5, 0.6, 0.6), strict=True):
        assert wanted <= wait <= wanted + SLACK


@pytest.mark.databases("postgresql")
def test_what_a_call_leaves_out_of_its_policy_is_as_the_setting_says(database: TestDatabase) -> None:
    setting = {"DATABASE": database.alias, "TASK_PUBLISH_RETRY_POLICY": {"max_retries": 1, "interval_step": 0}}
    with override_settings(DJANGO_TASKS=setting), refusing(database.alias) as calls:
        assert tries(calls) == 2
        assert tries(calls, retry_policy={"interval_start": 0.01}) == 2
        assert tries(calls, retry_policy={"max_retries": 2}) == 3


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize(
    ("errors", "count"),
    [
        (None, 2),
        ((OperationalError,), 2),
        (DatabaseOperationalError, 2),
        ((KeyError, DatabaseOperationalError), 2),
        ((KeyError,), 1),
        (OSError, 1),
    ],
)
def test_only_the_errors_that_a_policy_names_are_tried_again(database: TestDatabase, errors: Any, count: int) -> None:
    with refusing(database.alias) as calls:
        assert tries(calls, retry_policy={"max_retries": 1, "interval_step": 0, "retry_errors": errors}) == count


@pytest.mark.databases("postgresql", "mariadb", private=True)
def test_a_call_without_a_limit_is_stored_when_the_server_is_back(database: TestDatabase) -> None:
    server = database.server
    assert server is not None
    sent: list[str] = []
    policy = {"max_retries": None, "interval_start": 0.05, "interval_max": 0.05}

    def send() -> None:
        try:
            sent.append(noop.apply_async(retry_policy=policy).id)
        finally:
            connections.close_all()

    server.stop()
    with pytest.raises(OperationalError):
        noop.apply_async(retry_policy={**policy, "max_retries": 2})
    sender = threading.Thread(target=send)
    sender.start()
    server.start()
    sender.join(60)
    connections[database.alias].close()
    assert eventually(lambda: sent)
    assert [str(pk) for pk in models.Task.objects.values_list("pk", flat=True)] == sent
