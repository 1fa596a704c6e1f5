"""Running workers are asked and told: real processes, replies in the shapes of Celery 5.7's."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import transaction

from django_tasks import AsyncResult, control, states
from django_tasks.exceptions import WouldBlockForever
from django_tasks.models import Command, Limit, Reply, Task
from django_tasks.models import Worker as Row
from tests.eventually import eventually
from tests.integration.jobs import block_interpreter, wait_at_gate, work
from tests.integration.site import SHORT_LEASE, Site, Worker

pytestmark = pytest.mark.databases("sqlite", "postgresql")
SQLITE = pytest.mark.databases("sqlite")
REDIS_TOO = pytest.mark.databases("sqlite", "postgresql", "redis")

COMMANDS = ["tests.integration.jobs", "tests.integration.site_commands"]
#: Far more than an answer takes, in seconds: a test that waits so long has failed.
LONG = 60.0
#: Within this time a worker answers, in seconds, however busy its children are.
PROMPT = 1.0

TEXT, NUMBER, MOMENT, NONE = str, int, float, type(None)
#: What Celery 5.7.0 with two prefork workers on Redis replied, as types: a dict has exactly these keys.
REQUEST: dict[str, Any] = {
    "acknowledged": bool,
    "args": list,
    "delivery_info": {"exchange": TEXT, "priority": NUMBER, "redelivered": bool, "routing_key": TEXT},
    "hostname": TEXT,
    "id": TEXT,
    "kwargs": dict,
    "name": TEXT,
    "time_start": (MOMENT, NONE),
    "type": TEXT,
    "worker_pid": (NUMBER, NONE),
}
QUEUE: dict[str, Any] = {
    "alias": NONE,
    "auto_delete": bool,
    "binding_arguments": NONE,
    "bindings": list,
    "consumer_arguments": NONE,
    "durable": bool,
    "exchange": {
        "arguments": NONE,
        "auto_delete": bool,
        "delivery_mode": NONE,
        "durable": bool,
        "name": TEXT,
        "no_declare": bool,
        "passive": bool,
        "type": TEXT,
    },
    "exclusive": bool,
    "expires": NONE,
    "max_length": NONE,
    "max_length_bytes": NONE,
    "max_priority": NONE,
    "message_ttl": NONE,
    "name": TEXT,
    "no_ack": bool,
    "no_declare": NONE,
    "queue_arguments": NONE,
    "routing_key": TEXT,
}
SHAPES: dict[str, Any] = {
    "ping": {"ok": TEXT},
    "active": [REQUEST],
    "reserved": [REQUEST],
    "scheduled": [{"eta": TEXT, "priority": NUMBER, "request": REQUEST}],
    "registered": [TEXT],
    "active_queues": [QUEUE],
    "revoked": [TEXT],
    "clock": {"clock": NUMBER},
    "report": {"ok": TEXT},
    "conf": dict,
}
#: Of ``stats`` those keys that mean something without AMQP; there may be more.
STATS: dict[str, Any] = {
    "broker": dict,
    "clock": TEXT,
    "pid": NUMBER,
    "pool": dict,
    "prefetch_count": NUMBER,
    "rusage": dict,
    "total": dict,
    "uptime": NUMBER,
}
POOL: dict[str, Any] = {
    "implementation": TEXT,
    "max-concurrency": NUMBER,
    "max-tasks-per-child": (TEXT, NUMBER),
    "processes": [NUMBER],
    "put-guarded-by-semaphore": bool,
    "timeouts": list,
}


def fits(value: Any, shape: Any) -> bool:
    """Has a value this shape?"""
    if isinstance(shape, dict):
        return (
            isinstance(value, dict) and set(value) == set(shape) and all(fits(value[key], shape[key]) for key in shape)
        )
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(each, shape[0]) for each in value)
    return isinstance(value, shape)


def two_workers(site: Site, **options: Any) -> tuple[Worker, Worker]:
    """Start ``w1@t`` and ``w2@t``, with one process each, and wait until they answer."""
    first = site.launch("-n", "w1@t", concurrency=1, **options)
    second = site.launch("-n", "w2@t", concurrency=1, **options)
    eventually(lambda: len(control.nodes()) == 2, timeout=LONG)
    for worker in (first, second):
        worker.wait_for_children(1)
    return first, second


def ask(**options: Any) -> control.Inspect:
    """Ask without losing an answer to a busy machine: a reply that came ends the wait."""
    return control.inspect(**{"timeout": LONG, **options})


def keep_busy(site: Site, count: int) -> list[AsyncResult[int]]:
    """Send so many tasks that wait at the gate; return them once all run."""
    running = [wait_at_gate.delay(str(site.gates)) for _ in range(count)]
    for result in running:
        site.wait_for_start(result)
    return running


# inspect() -----------------------------------------------------------------------------------------------------------


def test_replies_have_the_shapes_of_celerys(site: Site) -> None:
    two_workers(site)
    running = keep_busy(site, 2)
    later = work.apply_async(countdown=3_600, priority=3)
    found = {name: getattr(ask(), name)() for name in SHAPES}
    for name, shape in SHAPES.items():
        assert set(found[name]) == {"w1@t", "w2@t"}, name
        for answer in found[name].values():
            assert fits(answer, shape), f"{name}: {answer}"
    active = {one["id"]: one for answer in found["active"].values() for one in answer}
    assert set(active) == {result.id for result in running}
    one = active[running[0].id]
    assert (one["name"], one["args"], one["kwargs"]) == ("tests.integration.jobs.wait_at_gate", [str(site.gates)], {})
    assert one["worker_pid"] == site.wait_for_start(running[0]).pid
    assert abs(one["time_start"] - time.time()) < LONG
    assert one["delivery_info"]["routing_key"] == "default"
    [entry] = [one for answer in found["scheduled"].values() for one in answer]
    assert (entry["request"]["id"], entry["priority"]) == (later.id, 3)
    assert "tests.integration.jobs.work" in found["registered"]["w1@t"]
    assert found["ping"] == {"w1@t": {"ok": "pong"}, "w2@t": {"ok": "pong"}}
    assert [queue["name"] for queue in found["active_queues"]["w1@t"]] == ["default"]
    assert found["conf"]["w1@t"]["imports"] == ["tests.integration.jobs"]
    hello = ask().hello("me@here")
    assert hello is not None
    assert all(fits(answer, {"clock": NUMBER, "revoked": list}) for answer in hello.values())


def test_stats_tell_what_the_worker_has_run_and_what_it_is(site: Site) -> None:
    worker, _ = two_workers(site)
    site.account(work.enqueue_many([()] * 7))
    found = ask().stats()
    assert found is not None
    for answer in found.values():
        assert fits({key: answer[key] for key in STATS}, STATS)
        assert fits(answer["pool"], POOL)
    assert found["w1@t"]["pid"] == worker.pid
    assert found["w1@t"]["pool"]["processes"] == [child.pid for child in worker.children()]
    name = "tests.integration.jobs.work"
    eventually(lambda: total_of(name) == 7)
    assert found["w1@t"]["rusage"]["maxrss"] > 0


def total_of(name: str) -> int:
    """Return how many tasks of a name the workers say that they have run."""
    return sum(answer["total"].get(name, 0) for answer in (ask().stats() or {}).values())


@REDIS_TOO
def test_query_task_tells_what_each_worker_knows(site: Site) -> None:
    two_workers(site)
    [running, other] = keep_busy(site, 2)
    later = work.apply_async(countdown=3_600, task_id="my own")
    waiting = work.delay()
    found = ask().query_task([running.id, later.id], waiting.id, "nobody knows")
    assert found is not None
    told = {task_id: answer for answers in found.values() for task_id, answer in answers.items()}
    assert {task_id: state for task_id, (state, _) in told.items()} == {running.id: "active", "my own": "scheduled"}
    assert all(fits(task, REQUEST) for _, task in told.values())
    assert other.id not in told


@pytest.mark.databases("postgresql")
def test_what_is_claimed_behind_a_running_task_is_told_as_reserved(site: Site) -> None:
    """It goes back after a quarter of a second, so it is asked for until it is seen."""
    site.launch("-n", "w1@t", "--prefetch-multiplier", "2", concurrency=1).wait_for_children(1)

    def reserved_once() -> bool:
        for _ in range(30):  # after short ones the next claim takes two
            work.delay().get(timeout=LONG)
        block_interpreter.enqueue_many([(0.7,)] * 2)
        site.wait_for(lambda: ask().active() != {"w1@t": []})
        seen = ask().reserved()
        site.wait_for(lambda: not Task.objects.exists())
        return bool(seen and seen["w1@t"] and fits(seen["w1@t"], [REQUEST]))

    eventually(reserved_once, timeout=LONG)


def test_registered_tells_attributes(site: Site) -> None:
    two_workers(site)
    found = ask(destination=["w1@t"]).registered("max_retries", "nothing")
    assert found is not None
    assert "tests.integration.jobs.work [max_retries=3]" in found["w1@t"]


# Who answers, and when -----------------------------------------------------------------------------------------------


def test_a_command_goes_to_those_that_are_named(site: Site) -> None:
    two_workers(site)
    assert ask(destination=["w2@t"]).ping() == {"w2@t": {"ok": "pong"}}
    assert ask(pattern="w1*").ping() == {"w1@t": {"ok": "pong"}}
    assert ask(pattern="w[12]@", matcher="pcre").ping() == {"w1@t": {"ok": "pong"}, "w2@t": {"ok": "pong"}}
    assert ask().ping(["w1@t"]) == {"w1@t": {"ok": "pong"}}
    assert len(control.ping(timeout=LONG, limit=1)) == 1
    assert control.ping(["w1@t"], timeout=LONG) == [{"w1@t": {"ok": "pong"}}]
    before = Command.objects.count()
    assert ask(destination=["nobody@t"]).ping() is None
    assert control.ping(["nobody@t"], timeout=LONG) == []
    assert control.broadcast("ping", destination=["nobody@t"]) is None
    assert Command.objects.count() == before
    heard: list[Any] = []
    ask(callback=heard.append, pattern="w1*").ping()
    assert heard == [{"w1@t": {"ok": "pong"}}]


def test_the_wait_ends_when_all_have_answered(site: Site) -> None:
    two_workers(site)
    control.ping(timeout=LONG)
    began = time.monotonic()
    assert len(control.ping(timeout=LONG)) == 2
    assert time.monotonic() - began < LONG / 4
    assert control.broadcast("ping") is None
    eventually(lambda: not Reply.objects.exclude(command_id__in=Command.objects.filter(wants_replies=True)).exists())


@REDIS_TOO
def test_a_busy_worker_answers_within_a_second(site: Site) -> None:
    """Its children run tasks that take for ever, and nobody is idle who would hear a hint."""
    two_workers(site)
    keep_busy(site, 2)
    times = []
    for _ in range(8):
        began = time.monotonic()
        assert len(control.ping(timeout=LONG)) == 2
        times.append(time.monotonic() - began)
    # One of them may meet a machine that is busy itself.
    assert sorted(times)[-2] < PROMPT, times


@REDIS_TOO
def test_an_idle_worker_answers_at_once(site: Site) -> None:
    two_workers(site)
    times = []
    for _ in range(8):
        began = time.monotonic()
        assert len(control.ping(timeout=LONG)) == 2
        times.append(time.monotonic() - began)
    assert sorted(times)[len(times) // 2] < 0.4, times


def test_a_worker_whose_child_is_stopped_answers(site: Site) -> None:
    worker, _ = two_workers(site)
    [child] = worker.children()
    child.suspend()
    assert ask(destination=["w1@t"]).ping() == {"w1@t": {"ok": "pong"}}
    found = ask(destination=["w1@t"]).stats()
    assert found is not None
    assert found["w1@t"]["pool"]["processes"] == [child.pid]
    child.resume()


def test_a_killed_worker_is_awaited_only_while_its_lease_lasts(site: Site) -> None:
    worker, _ = two_workers(site, **SHORT_LEASE)
    worker.kill_tree()
    began = time.monotonic()
    replies = control.ping(timeout=0.5)
    assert time.monotonic() - began < LONG / 4
    assert {"w2@t": {"ok": "pong"}} in replies or not replies
    assert {"w1@t": {"ok": "pong"}} not in replies
    eventually(lambda: control.nodes() == ["w2@t"], timeout=LONG)
    assert control.ping(timeout=LONG) == [{"w2@t": {"ok": "pong"}}]


@pytest.mark.databases("postgresql")  # on SQLite, a process may stand still while it has the lock of the file
def test_a_worker_that_starts_later_does_not_obey(site: Site) -> None:
    first = site.launch("-n", "w1@t", concurrency=1)
    eventually(lambda: control.nodes() == ["w1@t"], timeout=LONG)
    first.freeze()
    control.shutdown()
    second = site.launch("-n", "w2@t", concurrency=1)
    second.wait_for_children(1)
    assert control.ping(["w2@t"], timeout=LONG) == [{"w2@t": {"ok": "pong"}}]
    first.thaw()
    assert first.wait() == 0
    assert control.ping(["w2@t"], timeout=LONG) == [{"w2@t": {"ok": "pong"}}]


@SQLITE
def test_a_worker_of_one_process_answers_while_its_task_runs(site: Site) -> None:
    site.start("--pool", "solo", "-n", "w1@t")
    [running] = keep_busy(site, 1)
    found = ask().active()
    assert found is not None
    assert [one["id"] for one in found["w1@t"]] == [running.id]
    [reply] = control.pool_grow(reply=True, timeout=LONG) or []
    assert "--pool solo cannot do that" in reply["w1@t"]["error"]
    site.open_gate(site.wait_for_start(running))
    assert control.shutdown(reply=True, timeout=LONG) == [{"w1@t": {"ok": "shutting down"}}]
    assert site.workers[0].wait() == 0


# Errors, and commands of the site's own ------------------------------------------------------------------------------


def test_a_command_that_fails_answers_with_its_error(site: Site) -> None:
    site.launch("-n", "w1@t", concurrency=1, IMPORTS=COMMANDS)
    eventually(lambda: control.nodes() == ["w1@t"], timeout=LONG)

    def told(command: str, **arguments: Any) -> Any:
        [reply] = control.broadcast(command, arguments, reply=True, timeout=LONG) or []
        return reply["w1@t"]

    assert told("garbage") == {"error": "KeyError('garbage')"}
    assert told("fail") == {"error": "ValueError('nope')"}
    assert told("say_nothing") is None
    assert told("leave") == {"error": "SystemExit(3)"}
    assert told("tell_what_is_no_json")["error"].startswith("TypeError")
    assert told("query_task", ids=7)["error"].startswith("TypeError")
    assert told("ping", nonsense=1)["error"].startswith("TypeError")
    assert told("revoke")["error"].startswith("TypeError")
    assert told("time_limit", task_name="no.such", soft=1) == {"error": "unknown task"}
    assert told("add_consumer", queue="a b")["error"].startswith("ValueError")
    assert told("ping") == {"ok": "pong"}


def test_a_site_declares_commands_of_its_own(site: Site) -> None:
    site.launch("-n", "w1@t", concurrency=2, IMPORTS=COMMANDS).wait_for_children(2)
    assert control.broadcast("add_to", {"n": 3}, reply=True, timeout=LONG) == [{"w1@t": {"ok": "w1@t+3"}}]
    assert control.broadcast("add_to", n=4, reply=True, timeout=LONG) == [{"w1@t": {"ok": "w1@t+4"}}]
    seen = {"w1@t": {"hostname": "w1@t", "processes": 2, "knows_work": True}}
    assert (ask().ask("look_around"), ask().ask("dump_surroundings")) == (seen, seen)


@SQLITE
def test_a_command_that_hangs_is_left_alone(site: Site) -> None:
    site.launch("-n", "w1@t", concurrency=1, IMPORTS=COMMANDS)
    eventually(lambda: control.nodes() == ["w1@t"], timeout=LONG)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(control.broadcast, "hang", reply=True, timeout=LONG)
        eventually(lambda: Command.objects.filter(name="hang").exists(), timeout=LONG)
        assert control.ping(timeout=LONG) == [{"w1@t": {"ok": "pong"}}]
        site.account([work.delay()])
        assert hanging.result() == [{"w1@t": {"error": "TimeoutError('It takes longer than 10 s.')"}}]
    assert control.broadcast("add_to", reply=True, timeout=LONG) == [{"w1@t": {"ok": "w1@t+1"}}]
    assert site.workers[0].stop() == 0


# Telling -------------------------------------------------------------------------------------------------------------


def test_a_worker_is_shut_down_as_by_sigterm(site: Site) -> None:
    first, second = two_workers(site)
    running = keep_busy(site, 2)
    assert control.shutdown(["w1@t"], reply=True, timeout=LONG) == [{"w1@t": {"ok": "shutting down"}}]
    for result in running:
        site.open_gate(site.wait_for_start(result))
    assert first.wait() == 0
    assert set(site.account(running).fates.values()) == {states.SUCCESS}
    assert second.process.poll() is None
    assert control.ping(timeout=LONG) == [{"w2@t": {"ok": "pong"}}]


@REDIS_TOO
def test_a_revoke_needs_no_worker(site: Site) -> None:
    waiting, scheduled = work.delay(), work.apply_async(countdown=3_600, task_id="my own")
    assert control.revoke(waiting.id) is None
    assert control.revoke([scheduled.id], reply=True) == []
    assert (waiting.state, scheduled.state) == (states.REVOKED, states.REVOKED)
    site.launch("-n", "w1@t", concurrency=1).wait_for_children(1)
    again = work.delay()
    assert again.get(timeout=LONG) == 1
    assert {entry.task_id for entry in site.journal("start")} == {again.id}
    found = ask().revoked()
    assert found is not None
    assert set(found["w1@t"]) == {waiting.id, "my own"}


def test_workers_answer_to_a_revoke_in_celerys_words(site: Site) -> None:
    two_workers(site)
    waiting = work.apply_async(countdown=3_600)
    replies = control.revoke(waiting.id, reply=True, timeout=LONG) or []
    text = f"tasks {{'{waiting.id}'}} flagged as revoked"
    assert sorted(replies, key=str) == [{"w1@t": {"ok": text}}, {"w2@t": {"ok": text}}]
    assert waiting.state == states.REVOKED


@pytest.mark.databases("sqlite", "redis")
def test_a_revoke_is_part_of_the_callers_transaction(site: Site) -> None:
    sent = work.apply_async(countdown=3_600)
    with transaction.atomic():
        with pytest.raises(WouldBlockForever, match="revoke"):
            control.revoke(sent.id, reply=True)
        control.revoke(sent.id, terminate=True)
        transaction.set_rollback(True)
    assert sent.state == states.PENDING
    with transaction.atomic():
        control.revoke(sent.id, terminate=True)
    assert sent.state == states.REVOKED


def test_what_nobody_fetches_is_deleted_when_it_has_expired(site: Site) -> None:
    worker = site.launch("-n", "w1@t", concurrency=1)
    eventually(lambda: control.nodes() == ["w1@t"], timeout=LONG)
    assert control.broadcast("ping", reply=True, timeout=LONG, expires=0)
    assert Reply.objects.count() == 1
    # It is kept for as long as somebody may wait for it.
    assert Command.objects.count() == 1
    Command.objects.update(expires_at="2020-01-01T00:00Z")
    assert worker.stop() == 0
    site.launch("-n", "w2@t", concurrency=1)
    site.wait_for(lambda: not Command.objects.exists() and not Reply.objects.exists())


def test_a_heartbeat_renews_the_lease_at_once(site: Site) -> None:
    site.launch("-n", "w1@t", concurrency=1, WORKER_HEARTBEAT_INTERVAL=3_000, WORKER_LEASE=9_000)
    eventually(lambda: control.nodes() == ["w1@t"], timeout=LONG)
    before = Row.objects.get().beat_at
    assert control.heartbeat(reply=True, timeout=LONG) == [{"w1@t": None}]
    site.wait_for(lambda: Row.objects.get().beat_at > before)


def test_processes_are_added_taken_away_and_replaced(site: Site) -> None:
    first, second = two_workers(site)

    def said(reply: Any) -> Any:
        return [one["w1@t"] for one in reply]

    only: dict[str, Any] = {"destination": ["w1@t"], "reply": True, "timeout": LONG}
    assert said(control.pool_grow(2, **only)) == [{"ok": "pool will grow"}]
    before = first.wait_for_children(3)
    assert said(control.pool_shrink(**only)) == [{"ok": "pool will shrink"}]
    first.wait_for_children(2)
    [error] = said(control.pool_shrink(5, **only))
    assert error["error"].startswith("ValueError")
    assert said(control.pool_restart(**only)) == [{"ok": "reload started"}]
    eventually(lambda: len(found := first.children()) == 2 and not set(found) & set(before), timeout=LONG)
    assert said(control.autoscale(3, 1, **only)) == [{"ok": "autoscale now max=3 min=1"}]
    [error] = said(control.autoscale(1, 3, **only))
    assert error["error"].startswith("ValueError")
    assert len(second.children()) == 1
    site.account(work.enqueue_many([()] * 20))


@REDIS_TOO
def test_queues_are_consumed_and_left_at_run_time(site: Site) -> None:
    site.launch("-n", "w1@t", "-Q", "first", concurrency=1).wait_for_children(1)
    waiting = work.apply_async(queue="second")
    assert control.add_consumer("second", reply=True, timeout=LONG) == [{"w1@t": {"ok": "add consumer second"}}]
    site.account([waiting])
    assert queues_of("w1@t") == ["first", "second"]
    told = [{"w1@t": {"ok": "no longer consuming from first"}}]
    assert control.cancel_consumer("first", reply=True, timeout=LONG) == told
    assert queues_of("w1@t") == ["second"]
    left = work.apply_async(queue="first")
    assert work.apply_async(queue="second").get(timeout=LONG) == 1
    assert left.state == states.PENDING


def queues_of(node: str) -> list[str]:
    """Return the names of the queues that a worker says it consumes."""
    return [queue["name"] for queue in (ask().active_queues() or {})[node]]


@REDIS_TOO
def test_a_running_task_is_terminated_by_its_id(site: Site) -> None:
    two_workers(site)
    [ended, other] = keep_busy(site, 2)
    replies = control.terminate(ended.id, reply=True, timeout=LONG, signal="SIGKILL") or []
    words = sorted(one[name]["ok"] for one in replies for name in one)
    assert words in ([f"terminate: {ended.id}", "terminate: tasks unknown"], ["terminate: tasks unknown"] * 2)
    site.wait_for(lambda: ended.state == states.REVOKED)
    assert other.state == states.STARTED
    site.open_gate(site.wait_for_start(other))
    assert other.get(timeout=LONG), "each attempt returns its number"
    with pytest.raises(ValueError, match="signal is 'SIGFOO'"):
        control.terminate(other.id, signal="SIGFOO")


@pytest.mark.databases("sqlite", "redis")
def test_running_tasks_are_terminated_by_their_stamps(site: Site) -> None:
    site.launch("-n", "w1@t", concurrency=2).wait_for_children(2)
    ours, theirs = (wait_at_gate.s(str(site.gates)) for _ in range(2))
    ours.stamp(customer=7)
    theirs.stamp(customer=8)
    ended, other = ours.delay(), theirs.delay()
    for result in (ended, other):
        site.wait_for_start(result)
    later = work.s()
    later.stamp(customer=7)
    waiting = later.apply_async(countdown=3_600)

    def told(headers: Any, **options: Any) -> str:
        [reply] = control.revoke_by_stamped_headers(headers, reply=True, timeout=LONG, **options) or []
        return str(reply["w1@t"]["ok"])

    assert told({"customer": 6}) == "headers {'customer': ['6']} flagged as revoked, but not terminated"
    assert told({"customer": 6}, terminate=True) == "headers {'customer': ['6']} were not terminated"
    # What the row says is obeyed at once, so the task may be over when the command comes.
    assert told({"customer": [6, 7]}, terminate=True) in (
        "headers {'customer': {'7'}} revoked",
        "headers {'customer': ['6', '7']} were not terminated",
    )
    site.wait_for(lambda: ended.state == states.REVOKED)
    assert waiting.state == states.REVOKED
    arguments = {"headers": ["customer=8"], "terminate": True}  # from one who knows no method for it
    [reply] = control.broadcast("revoke_by_stamped_headers", arguments, reply=True, timeout=LONG) or []
    assert reply["w1@t"]["ok"].startswith("headers ")
    site.wait_for(lambda: other.state == states.REVOKED)
    assert later.delay().get(timeout=LONG) == 1, "what is sent later is none of it"


@SQLITE
def test_time_limits_are_set_at_run_time(site: Site) -> None:
    site.launch("-n", "w1@t", concurrency=1).wait_for_children(1)
    name = "tests.integration.jobs.wait_at_gate"
    reply = control.time_limit(name, soft=0.3, hard=30, reply=True, timeout=LONG)
    assert reply == [{"w1@t": {"ok": "time limits set successfully"}}]
    result = wait_at_gate.delay(str(site.gates))
    site.wait_for(lambda: result.state == states.FAILURE)
    assert "SoftTimeLimitExceeded" in str(result.traceback)


@REDIS_TOO
def test_a_rate_limit_is_set_for_all_workers_and_lasts(site: Site) -> None:
    two_workers(site)
    name = "tests.integration.jobs.work"

    def words(rate: Any, task: str = name) -> list[Any]:
        """Send it as a process that does not know the task would."""
        arguments = {"task_name": task, "rate_limit": rate}
        replies = control.broadcast("rate_limit", arguments, reply=True, timeout=LONG) or []
        return sorted(({name: one[name]} for one in replies for name in one), key=str)

    def both(answer: Any) -> list[Any]:
        return [{"w1@t": answer}, {"w2@t": answer}]

    assert words("10/m") == both({"ok": "new rate limit set successfully"})
    assert (Limit.objects.get().name, Limit.objects.get().rate) == (name, "10/m")
    assert words("10/m", "no.such") == both({"error": "unknown task"})
    assert all(reply["error"].startswith("Invalid rate limit") for one in words("x/y") for reply in one.values())
    assert words(0) == both({"ok": "rate limit disabled successfully"})
    assert Limit.objects.get().rate == ""
    replies = control.rate_limit(name, "5/s", reply=True, timeout=LONG) or []
    assert sorted(replies, key=str) == both({"ok": "new rate limit set successfully"})
    assert Limit.objects.get().rate == "5/s"


@pytest.mark.databases("sqlite", "redis")
def test_a_rate_limit_needs_no_worker(site: Site) -> None:
    name = "tests.integration.jobs.work"
    assert control.rate_limit(name, "10/m") is None
    assert Limit.objects.get().rate == "10/m"
    with pytest.raises(ValueError, match="rate_limit is 'x/y'"):
        control.rate_limit(name, "x/y")
