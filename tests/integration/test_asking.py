"""Running workers are asked what they cost and where they stand, and stopped at once: real processes."""

from __future__ import annotations

import signal
import warnings

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from django_tasks import control, states
from django_tasks.exceptions import DuplicateNodenameWarning
from django_tasks.models import Task
from django_tasks.models import Worker as Row
from tests.admin.pages import text_of
from tests.eventually import eventually
from tests.integration.jobs import wait_at_gate, work, work_at_most_once
from tests.integration.site import Site
from tests.integration.stack_jobs import await_nothing, hang_in_c
from tests.servers import free_port

pytestmark = pytest.mark.databases("sqlite")

IMPORTS = ["tests.integration.jobs", "tests.integration.stack_jobs"]
#: Far more than an answer takes, in seconds: a test that waits so long has failed.
LONG = 60.0


def ask() -> control.Inspect:
    return control.inspect(["w1@t"], timeout=LONG)


def stacks() -> str:
    """Return what the only worker tells of its processes."""
    return str((ask().stacks() or {})["w1@t"]["ok"])


@pytest.mark.databases("sqlite", "postgresql")
def test_a_worker_tells_where_its_tasks_stand_and_a_cold_stop_gives_them_to_others(site: Site) -> None:
    """In each kind of pool, and in C as well. What was asked goes on undisturbed; what is killed runs elsewhere."""
    pools = ("--pool", "prefork:default=2", "--pool", "threads:calls=2", "--pool", "asyncio:waits=2")
    worker = site.launch("-n", "w1@t", *pools, IMPORTS=IMPORTS)
    at_gate, hanging = wait_at_gate.delay(str(site.gates)), hang_in_c.delay(str(site.gates))
    in_thread = wait_at_gate.apply_async((str(site.gates),), queue="calls")
    awaiting = await_nothing.apply_async((str(site.gates),), queue="waits")
    starts = [site.wait_for_start(result) for result in (at_gate, hanging, in_thread, awaiting)]
    told = stacks()
    parts = {int(part.split()[0]): part for part in told.split("Process ")[1:]}
    assert set(parts) == {child.pid for child in worker.children()}
    for start, result, name in (
        (starts[0], at_gate, "wait_for"),
        (starts[1], hanging, "hang_in_c"),
        (starts[2], in_thread, "wait_for"),
        (starts[3], awaiting, "in never"),
    ):
        assert f"({result.id})" in parts[start.pid].splitlines()[0]
        assert name in "".join(parts[start.pid].splitlines(keepends=True)[1:]), parts[start.pid]
    assert "Thread task-1 " in parts[starts[2].pid]
    assert f"Coroutine of task {awaiting.id} " in parts[starts[3].pid]
    assert stacks().count("hang_in_c") == told.count("hang_in_c"), "asked again, it tells the same"

    worker.children()[0].suspend()
    assert "It says nothing" in stacks()
    worker.children()[0].resume()
    site.open_gate(starts[0])
    assert at_gate.get(timeout=LONG) == starts[0].attempt, "it was not disturbed"

    assert control.shutdown(["w1@t"], cold=True, reply=True, timeout=LONG) == [
        {"w1@t": {"ok": "shutting down at once"}}
    ]
    assert worker.wait() == 0
    assert not worker.orphans()
    left = {str(row.pk): (row.state, row.worker_id, row.losses) for row in Task.objects.all()}
    assert left == {result.id: (states.PENDING, None, 0) for result in (hanging, in_thread, awaiting)}
    (site.gates / "go").touch()
    site.launch(*pools, IMPORTS=IMPORTS)
    site.open_gate(site.wait_for_start(in_thread, 2))
    assert set(site.account([at_gate, hanging, in_thread, awaiting]).fates.values()) == {states.SUCCESS}


def test_a_worker_of_one_process_tells_its_stacks_and_cannot_stop_cold(site: Site) -> None:
    site.start("--pool", "solo", "-n", "w1@t")
    running = wait_at_gate.delay(str(site.gates))
    start = site.wait_for_start(running)
    told = stacks()
    assert told.startswith(f"Process {start.pid} runs tests.integration.jobs.wait_at_gate ({running.id}).")
    assert "in wait_for" in told
    [reply] = control.shutdown(cold=True, reply=True, timeout=LONG) or []
    assert "--pool solo cannot do that" in reply["w1@t"]["error"]
    site.open_gate(start)
    assert running.get(timeout=LONG) == 1


def test_what_is_to_run_at_most_once_fails_when_its_worker_is_stopped_cold(site: Site) -> None:
    """As it does after SIGQUIT."""
    worker = site.start("-n", "w1@t", concurrency=1)
    once = work_at_most_once.delay(LONG)
    site.wait_for_start(once)
    control.shutdown(cold=True)
    assert worker.wait() == 0
    assert once.state == states.FAILURE
    with pytest.raises(TypeError, match="cold must be True or False, not 'yes'"):
        control.shutdown(cold="yes")  # type: ignore[arg-type]


def test_a_worker_tells_what_its_processes_cost_and_how_its_clock_goes(site: Site) -> None:
    worker = site.start("-n", "w1@t", "--autoscale", "3,1", concurrency=1)
    told = (ask().stats() or {})["w1@t"]
    assert list(told["processes"]) == [str(worker.pid), *(str(child.pid) for child in worker.children())]
    for usage in told["processes"].values():
        assert usage["memory_kib"] > 1_000
        assert usage["cpu_seconds"] >= 0
    assert told["processes"][str(worker.pid)]["cpu_seconds"] > 0
    assert abs(told["clock_skew"]) < LONG
    assert told["autoscaler"] == {"max": 3, "min": 1, "current": 1, "qty": 0}


@pytest.mark.databases("sqlite", "postgresql")
def test_everybody_sees_what_a_worker_was_told_on_its_page(site: Site) -> None:
    """Queues and processes, also those of its row."""
    worker = site.start("-n", "w1@t", "-Q", "first", concurrency=1)
    client = Client()
    client.force_login(User.objects.create_superuser("root"))

    def press(action: str, **fields: object) -> str:
        address = f"/admin/django_tasks/worker/{Row.objects.get().pk}/desk/"
        page = client.post(address, {"action": action, **fields}, follow=True)
        return " ".join(text_of(page.content.decode()).split())

    assert "1 of 1 did so" in press("add_consumer", queue="second")
    assert work.apply_async(queue="second").get(timeout=LONG) == 1
    eventually(lambda: Row.objects.get().queues == "first,second")
    assert "1 of 1 did so" in press("cancel_consumer", queue="first")
    eventually(lambda: Row.objects.get().queues == "second")
    assert "1 of 1 did so" in press("autoscale", min=2, max=3)
    worker.wait_for_children(2)
    eventually(lambda: Row.objects.get().concurrency == 2)
    page = press("stats")
    assert "Autoscale 2 – 3" in page
    assert "Clock as the database's" in page
    assert str(worker.pid) in page
    assert "Thread MainThread" in press("stacks")
    assert "1 of 1 did so" in press("time_limit", task_name="tests.integration.jobs.wait_at_gate", soft=0.3, hard=30)
    late = wait_at_gate.apply_async((str(site.gates),), queue="second")
    eventually(lambda: late.state == states.FAILURE, timeout=LONG)
    assert "SoftTimeLimitExceeded" in str(late.traceback)
    assert "w1@t: unknown task" in press("time_limit", task_name="no.such", soft=1).lower()
    assert LogEntry.objects.count() == 7


def test_sigusr1_writes_the_stacks_of_all_processes_and_the_worker_goes_on(site: Site) -> None:
    worker = site.start(concurrency=1)
    running = wait_at_gate.delay(str(site.gates))
    start = site.wait_for_start(running)
    worker.send(signal.SIGUSR1)
    worker.wait_until_it_says("in wait_for")
    site.open_gate(start)
    assert running.get(timeout=LONG) == 1


def test_two_workers_of_one_name_are_warned_of(site: Site) -> None:
    for _ in range(2):
        site.launch("-n", "w1@t", concurrency=1)
    eventually(lambda: len(control.nodes()) == 2, timeout=LONG)
    with pytest.warns(DuplicateNodenameWarning, match="Several workers are called w1@t") as found:
        assert ask().ping() == {"w1@t": {"ok": "pong"}}
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        control.inspect(["w1@t"], timeout=LONG, limit=1).ping()


def test_a_worker_without_its_redis_says_what_to_start(site: Site) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    worker = site.launch("-n", "w1@t", BROKER_URL=url)
    worker.wait_until_it_says("Start Redis or correct BROKER_URL; trying again")
    said = worker.said()
    assert "Redis at redis://:***@127.0.0.1" in said
    assert "DATABASES" not in said
    assert "secret" not in said
    assert worker.stop() == 0
