"""``manage.py tasks``: the verbs that speak with running workers, in their exit codes and words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from django_tasks import panel, states
from django_tasks.backends import get_broker
from django_tasks.control import AFTERLIFE
from django_tasks.dashboard import database_now
from django_tasks.models import Beat
from django_tasks.models import Command as CommandRow
from tests.app import tasks as jobs
from tests.backends.calls import a_worker
from tests.commands.conftest import Command, Said
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.inprocess import Worker as InProcess
from tests.integration.beats import start_beat
from tests.integration.site import Site
from tests.rows import failure, finished, saved

pytestmark = pytest.mark.databases("sqlite")
LONG = ("--timeout", "60")


@pytest.fixture
def site(database: TestDatabase, tmp_path: Path) -> Iterator[Site]:
    """Give a site with one worker, ``w1@t``."""
    site = Site(database, tmp_path)
    site.launch(
        "-n", "w1@t", concurrency=1, IMPORTS=["tests.integration.jobs", "tests.integration.site_commands"]
    ).wait_for_children(1)
    yield site
    site.close()


def test_inspect_shows_replies_as_celery_does(site: Site, tasks: Command) -> None:
    assert tasks("inspect", "ping", *LONG).out == "->  w1@t: OK\n        pong\n\n1 node online.\n"
    assert tasks("inspect", "active", *LONG).out == "->  w1@t: OK\n        - empty -\n\n1 node online.\n"
    registered = tasks("inspect", "registered", *LONG).out
    assert "        * tests.integration.jobs.work\n" in registered
    assert tasks("inspect", "query_task", "abc", "def", "--json", *LONG).data == {"w1@t": {}}
    assert tasks("inspect", "ping", "-d", "w1@t,w2@t", "--json", *LONG).data == {"w1@t": {"ok": "pong"}}
    assert tasks("ping", "--json", *LONG).data == {"w1@t": {"ok": "pong"}}
    assert tasks("status", *LONG).out == "->  w1@t: OK\n\n1 node online.\n"
    assert "DATABASE" in tasks("inspect", "report", *LONG).out or "software ->" in tasks("inspect", "report", *LONG).out


def test_a_ping_asks_beats_too_and_status_tells_of_workers(site: Site, tasks: Command) -> None:
    start_beat(site, "-n", "beat@t")
    eventually(lambda: Beat.objects.exists(), timeout=60)
    assert set(tasks("ping", "--json", *LONG).data) == {"w1@t", "beat@t"}
    assert set(tasks("inspect", "ping", "--json", *LONG).data) == {"w1@t", "beat@t"}
    assert tasks("inspect", "ping", "-d", "beat@t", *LONG).out == "->  beat@t: OK\n        pong\n\n1 node online.\n"
    assert set(tasks("status", "--json", *LONG).data) == {"w1@t"}


def test_each_beat_of_one_name_is_shown(site: Site, tasks: Command) -> None:
    for _ in range(2):
        start_beat(site, "-n", "beat@t")
    eventually(lambda: Beat.objects.count() == 2, timeout=60)
    said = tasks("ping", "-d", "beat@t", *LONG).out
    assert said == 2 * "->  beat@t: OK\n        pong\n" + "\n2 nodes online.\n"
    assert tasks("ping", "-d", "beat@t", "--json", *LONG).data == {"beat@t": {"ok": "pong"}}


def test_control_tells_workers_what_to_do(site: Site, manage: Callable[..., Said]) -> None:
    """By processes of their own, with the site's commands."""
    options = {"IMPORTS": ["tests.integration.site_commands"]}
    said = manage("tasks", "control", "add_to", "3", *LONG, **options)
    assert (said.code, said.out) == (0, "->  w1@t: OK\n        w1@t+3\n")
    said = manage("tasks", "control", "add_to", "x", *LONG, **options)
    assert (said.code, "n 'x': invalid literal" in said.err) == (2, True)
    said = manage("tasks", "inspect", "fail", *LONG, **options)
    assert (said.code, "ERROR\n        ValueError('nope')" in said.out) == (1, True)
    said = manage("tasks", "inspect", "look_around", **options)
    assert (said.code, "'look_around' is none; inspect has: active" in said.err) == (2, True)
    said = manage("tasks", "control", "--help", **options)
    assert (said.code, said.err) == (0, "")
    assert "\n  add_to [N=1]  " in said.out
    assert "Add a number to the name of the node.\n" in said.out
    assert "\n  rate_limit TASK RATE  " in said.out
    said = manage("tasks", "control", "shutdown", *LONG)
    assert (said.code, said.out) == (0, "->  w1@t: OK\n        shutting down\n")
    assert site.workers[0].wait() == 0
    said = manage("tasks", "status")
    assert (said.code, "No nodes replied within time constraint" in said.err) == (69, True)


def test_nobody_who_replies_is_exit_code_69(tasks: Command) -> None:
    for words in (("inspect", "ping"), ("control", "pool_grow"), ("status",), ("ping",), ("control", "shutdown")):
        said = tasks(*words)
        assert (said.code, "No nodes replied within time constraint" in said.err) == (69, True), words
    said = tasks("inspect", "ping", "--json", "-d", "nobody@x")
    assert (said.code, said.data) == (69, {})


def test_what_lasts_needs_no_reply(tasks: Command) -> None:
    waiting = jobs.noop.delay()
    said = tasks("control", "revoke", waiting.id)
    assert (said.code, said.out) == (0, "It is stored; no worker is there to answer.\n")
    assert waiting.state == states.REVOKED
    assert tasks("control", "rate_limit", "tests.app.tasks.noop", "5/m", "--json").code == 0
    stamped = jobs.noop.s()
    stamped.stamp(customer=7)
    sent = stamped.delay()
    assert tasks("control", "revoke_by_stamped_headers", "customer=7").code == 0
    assert sent.state == states.REVOKED


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("inspect", "garbage"), "'garbage' is none; inspect has: active, active_queues"),
        (("inspect",), "Name a command; inspect has: active"),
        (("inspect", "hello"), "'hello' is none; inspect has: active"),
        (("control", "ping"), "'ping' is none; control has: add_consumer"),
        (("inspect", "ping", "x"), "ping takes no 'x'. Usage: inspect ping"),
        (("control", "pool_grow", "many"), "n 'many': invalid literal"),
        (("control", "autoscale", "3", "1", "2"), "autoscale takes no '2'. Usage: control autoscale MAX [MIN]"),
        (("control", "rate_limit", "tests.app.tasks.noop", "x/y"), "rate_limit is 'x/y'"),
        (("control", "terminate", "SIGFOO", "abc"), "signal is 'SIGFOO'"),
        (("control", "rate_limit"), "rate_limit takes TASK RATE"),
        (("control", "revoke_by_stamped_headers", "customer"), "A stamp is given as NAME=VALUE, not 'customer'"),
        (("control", "revoke_by_stamped_headers"), "headers must be"),
    ],
)
def test_wrong_usage_is_told(tasks: Command, words: tuple[str, ...], message: str) -> None:
    said = tasks(*words)
    assert said.code == 2
    assert message in said.err


def test_the_commands_are_listed_with_what_they_take(tasks: Command) -> None:
    out = tasks("control", "--list").out
    assert "rate_limit TASK RATE " in out
    names = {row["command"].split()[0] for row in tasks("inspect", "--list", "--json").data}
    assert {"active", "scheduled", "reserved", "registered", "stats", "ping", "report", "conf", "query_task",
            "active_queues", "revoked", "clock"} <= names  # fmt: skip
    assert names.isdisjoint({"hello", "dump_active"}), "what is not visible, and other names"


def test_a_command_says_for_how_long_its_replies_are_awaited(tasks: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    a_worker(get_broker(), name="deaf@h")
    monkeypatch.setattr(panel, "commands", {**panel.commands})
    panel.add_command(lambda state: None, "inspect", name="glance", default_timeout=0.1)
    for words in (("glance",), ("glance", "--timeout", "0.2"), ("ping", "--timeout", "0.3")):
        assert tasks("inspect", *words).code == 69
    kept = [(row.expires_at - row.created_at).total_seconds() for row in CommandRow.objects.order_by("id")]
    assert kept == pytest.approx([AFTERLIFE + 0.1, AFTERLIFE + 0.2, AFTERLIFE + 0.3], abs=0.01)


def test_result_tells_the_return_value_or_why_there_is_none(tasks: Command) -> None:
    [good] = saved([finished(result='{"a":1}')])
    [bad] = saved([failure()])
    assert json.loads(tasks("result", good.pk).out) == {"a": 1}
    assert tasks("result", good.pk, "--json").data["result"] == {"a": 1}
    said = tasks("result", bad.pk)
    assert (said.code, said.out, said.err) == (1, "", "FAILURE: ValueError: boom\n")
    assert "Traceback" in tasks("result", bad.pk, "--traceback").out
    assert tasks("result", bad.pk, "--json").data["state"] == "FAILURE"
    assert (tasks("result", "nothing").code, tasks("result", "nothing").err) == (
        1,
        "Nobody knows a task 'nothing'; results may have expired.",
    )
    waiting = jobs.noop.delay()
    said = tasks("result", waiting.id, "--timeout", "0.1")
    assert said.code == 1
    assert "It is PENDING." in said.err
    InProcess().drain()
    assert tasks("result", waiting.id).code == 0


def test_call_sends_a_task_as_enqueue_does(tasks: Command) -> None:
    task_id = tasks("call", "tests.app.tasks.add", "--args", "[1, 2]").out.strip()
    InProcess().drain()
    assert tasks("result", task_id).out == "3\n"


def test_report_tells_versions_and_no_secrets(tasks: Command) -> None:
    out = tasks("report").out
    assert "django-workbeat:" in out
    assert "database -> default: SQLite" in out
    assert tasks("report", "--json").data == {"report": out.rstrip("\n")}


def test_health_tells_whether_a_worker_is_online(tasks: Command) -> None:
    said = tasks("health")
    assert (said.code, "No worker is online" in said.err) == (1, True)
    a_worker(get_broker(), name="w1@h")
    assert (tasks("health").code, tasks("health").out) == (0, "Online: w1@h.\n")
    assert tasks("health", "--json").data == {"ok": True, "problem": None}
    assert not CommandRow.objects.exists()


def test_health_tells_whether_a_beat_is_online(tasks: Command) -> None:
    said = tasks("health", "--beat")
    assert (said.code, "No beat is online. Start one: manage.py runbeat" in said.err) == (1, True)
    now = database_now()
    beat = Beat.objects.create(name="beat@h", hostname="h", pid=1, version="1", started_at=now, seen_at=now)
    assert (tasks("health", "--beat").code, tasks("health", "--beat").out) == (0, "Online: beat@h.\n")
    Beat.objects.filter(pk=beat.pk).update(seen_at=now - timedelta(minutes=1))  # its loop stands still
    assert tasks("health", "--beat").code == 1


def test_health_looks_at_a_file(tasks: Command, tmp_path: Path) -> None:
    file = tmp_path / "worker"
    said = tasks("health", "--file", file)
    assert (said.code, "is not there" in said.err) == (1, True)
    file.touch()
    assert tasks("health", "--file", file).code == 0
    assert eventually(lambda: tasks("health", "--file", file, "--max-age", "0.05").code == 1)
