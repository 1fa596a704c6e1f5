"""From a command line to a worker: what is understood, and what is refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management.base import CommandError
from django.test import override_settings

from django_tasks.backends.base import Queues, WorkerInfo
from django_tasks.management.commands.runworker import Command
from django_tasks.worker.start import WorkerCommand, _pidfile, banner, prepare
from tests.databases import TestDatabase


def understood(*words: str) -> WorkerCommand:
    """Return what ``runworker`` makes of these words."""
    parser = Command().create_parser("manage.py", "runworker")
    return WorkerCommand.from_options(vars(parser.parse_args(words)))


def configured(**tasks_settings: Any) -> override_settings:
    return override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, **tasks_settings})


def test_without_options_the_settings_count() -> None:
    with configured(
        WORKER_CONCURRENCY=3,
        WORKER_POOL="prefork",
        WORKER_SHUTDOWN_TIMEOUT=7,
        WORKER_MAX_TASKS_PER_CHILD=11,
        WORKER_MAX_MEMORY_PER_CHILD=100_000,
        WORKER_PREFETCH_MULTIPLIER=5,
    ):
        command = understood()
    assert (command.concurrency, command.pool, command.shutdown_timeout) == (3, "prefork", 7.0)
    assert (command.max_tasks, command.max_memory, command.prefetch) == (11, 100_000, 5)
    assert command.queues == Queues()
    assert (command.burst, command.loglevel, command.logfile, command.pidfile) == (False, "INFO", None, None)


def test_an_option_wins_over_its_setting() -> None:
    with configured(WORKER_CONCURRENCY=3, WORKER_SHUTDOWN_TIMEOUT=7, WORKER_MAX_TASKS_PER_CHILD=11):
        command = understood("-c", "2", "--shutdown-timeout", "0", "--max-tasks-per-child", "1", "-l", "debug")
    assert (command.concurrency, command.shutdown_timeout, command.max_tasks) == (2, 0.0, 1)
    assert command.loglevel == "DEBUG"


def test_there_is_a_process_for_each_cpu_unless_told_otherwise() -> None:
    with configured(WORKER_CONCURRENCY=None):
        assert 1 <= understood().concurrency <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("words", "queues"),
    [
        (["-Q", "mail"], Queues(("mail",))),
        (["-Q", "mail,images"], Queues(("mail", "images"))),
        (["-Q", "mail", "images,mail"], Queues(("mail", "images"))),
        (["-Q", "*"], Queues()),
        (["-X", "mail,images"], Queues((), frozenset({"mail", "images"}))),
        (["-Q", "mail", "images", "-X", "images"], Queues(("mail", "images"), frozenset({"images"}))),
    ],
)
def test_queues_are_named_in_order_with_commas_or_without(words: list[str], queues: Queues) -> None:
    assert understood(*words).queues == queues


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (None, "worker@{host}"),
        ("mail", "mail"),
        ("mail@%h", "mail@{host}"),
        ("%n-%p@%h", "worker-{pid}@{host}"),
        ("mail@%d", "mail@{domain}"),
    ],
)
def test_the_node_name_is_expanded(given: str | None, name: str) -> None:
    host = socket.gethostname()
    expected = name.format(host=host, pid=os.getpid(), domain=host.partition(".")[2] or host)
    assert understood(*(["-n", given] if given else [])).name == expected


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["-c", "0"], "--concurrency 0: must be at least 1"),
        (["--max-tasks-per-child", "0"], "--max-tasks-per-child 0: must be at least 1"),
        (["--max-memory-per-child", "-5"], "--max-memory-per-child -5: must be at least 1"),
        (["--prefetch-multiplier", "0"], "--prefetch-multiplier 0: must be at least 1"),
        (["--shutdown-timeout", "-1"], "--shutdown-timeout -1.0: must be at least 0"),
        (["--shutdown-timeout", "nan"], "--shutdown-timeout nan: must be at least 0"),
        (["-l", "loud"], "--loglevel 'loud': allowed are DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        (["-n", "x" * 256], "a node name has 1 to 255 printable characters"),
        (["-n", "a\nb"], "a node name has 1 to 255 printable characters"),
        (["-Q", "my queue"], "--queues: queue is 'my queue'; allowed: 1 to 64 of the characters"),
        (["-X", "x" * 65], "-X: queue is "),
        (["-Q", ""], "--queues names no queue"),
        (["-Q", "mail", "-X", "mail"], "--queues mail: -X excludes all of them"),
        (["-P", "solo", "-c", "4"], "--concurrency 4: --pool solo runs one task at a time"),
        (["-P", "solo", "--shutdown-timeout", "5"], "--shutdown-timeout: --pool solo always waits for its task"),
        (["-P", "gevent"], "--pool gevent: there is no pool 'gevent'; allowed are prefork, threads, asyncio, solo"),
        (["-P", "thread"], "--pool thread: there is no pool 'thread'; allowed are prefork, threads, asyncio, solo"),
        (["-P", "threads=0"], "--pool threads=0: '0' is no concurrency; allowed: a whole number from 1 to 10000"),
        (["-P", "threads:mail=many"], "--pool threads:mail=many: 'many' is no concurrency"),
        (["-P", "asyncio:=5"], "--pool asyncio:=5 names no queue"),
        (["-P", "asyncio:my queue=5"], "--pool asyncio:my queue=5: queue is 'my queue'; allowed"),
        (["-P", "solo=2"], "--pool solo=2: solo runs one task at a time"),
        (["-P", "solo", "-P", "threads"], "solo is one process, there can be no other pool beside it"),
        (["-P", "threads:mail", "-Q", "images"], "--pool threads:mail: name queues either here or with --queues"),
        (["-P", "threads:mail", "-X", "mail"], "--pool threads:mail: -X excludes all of its queues"),
        (["--autoscale", "3,10"], "--autoscale 3,10: allowed are MAX,MIN or MAX with 1 <= MIN <= MAX"),
        (["--autoscale", "many"], "--autoscale many: allowed are MAX,MIN"),
        (["--autoscale", "3", "-P", "threads"], "--autoscale 3: only a pool prefork grows and shrinks, not threads"),
        (["--time-limit", "0"], "--time-limit is 0.0; allowed: None (no limit) or a number of seconds above 0"),
        (["--time-limit", "5", "--soft-time-limit", "6"], "--soft-time-limit is 6.0; allowed: at most --time-limit"),
        (["-P", "solo", "--time-limit", "5"], "--time-limit 5: --pool solo has no other process that could end its"),
    ],
)
def test_a_bad_value_is_refused_with_what_was_given_and_what_is_allowed(words: list[str], problem: str) -> None:
    """R31: no value is corrected in silence, no option ignored."""
    with pytest.raises(CommandError) as raised:
        understood(*words)
    assert problem in str(raised.value)


@pytest.mark.parametrize("left", ["", "not a number", "0", "-7", "999999999", pytest.param(str(os.getpid()), id="own")])
def test_a_pid_file_that_names_no_other_live_process_is_taken_over(tmp_path: Path, left: str) -> None:
    """In a container the dead worker before us had our own process id."""
    file = tmp_path / "pid"
    file.write_text(left)
    with _pidfile(str(file)):
        assert file.read_text() == f"{os.getpid()}\n"
    assert not file.exists()


def test_a_pid_file_of_a_live_process_is_respected(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    file.write_text(str(os.getppid()))
    refused = pytest.raises(CommandError, match=f"it names the process {os.getppid()}, which is running")
    with refused as raised, _pidfile(str(file)):
        pytest.fail("two workers")
    assert raised.value.returncode == 73
    assert file.read_text() == str(os.getppid())


def info(**changes: Any) -> WorkerInfo:
    known = WorkerInfo("mail@here", "here", 4711, "prefork", 2, Queues(("mail",), frozenset({"old"})), "1.2", 20.0)
    return known._replace(**changes)


def test_the_banner_names_the_database_without_its_password(database: TestDatabase) -> None:
    """S16: where tasks come from, and no secret."""
    database.connection.settings_dict["PASSWORD"] = "kumquat"  # noqa: S105 - that is the point
    said = banner(info())
    assert database.vendor in said
    assert str(database.connection.settings_dict["NAME"]) in said
    assert "kumquat" not in said
    assert "mail -old" in said
    assert "tests.app.tasks.add" in said


@pytest.mark.databases("sqlite")
def test_the_banner_warns_of_what_will_surprise(database: TestDatabase) -> None:
    assert "may run twice" in banner(info(pool="solo"))
    assert "may run twice" not in banner(info())
    with configured(TASK_ALWAYS_EAGER=True):
        assert "TASK_ALWAYS_EAGER is on" in banner(info())


@pytest.mark.databases(alias="tasks")
def test_a_migrated_database_of_any_alias_is_ready(database: TestDatabase) -> None:
    assert prepare() is None


@pytest.mark.databases("sqlite", alias="tasks")
def test_missing_tables_are_told_with_the_command_for_their_alias(database: TestDatabase) -> None:
    """R31: the command that cures it works as it is written."""
    with database.connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'django_tasks'")
    problem = prepare()
    assert problem is not None
    assert problem.endswith("Run: manage.py migrate django_tasks --database tasks")
