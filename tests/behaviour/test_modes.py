"""Eager mode, ``run_tasks`` and a real worker come to the same: state, result, error, retries, handlers and signals."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Group
from django.test import override_settings

from django_tasks import AsyncResult, EagerResult
from django_tasks.models import Task
from django_tasks.testing import eager_tasks, run_tasks, worker
from tests.behaviour import jobs
from tests.behaviour.scenarios import SCENARIOS, Scenario
from tests.databases import TestDatabase
from tests.eventually import eventually

#: Seconds in which a worker must be done with all scenarios on a busy machine.
PATIENCE = 90
SETTINGS = {"ACCEPT_CONTENT": ["json", "msgpack"]}


@dataclass
class Told:
    """All that can be learnt of a call, and of the calls that it made, once they are over."""

    state: str
    result: Any = None
    get: Any = None
    traceback_ends: str = ""
    details: tuple[Any, ...] = ()
    questions: tuple[bool, ...] = ()
    #: What happened to each call, in its order: in eager mode a task that is sent runs before its sender goes on.
    events: dict[str, list[Any]] = field(default_factory=dict)


def send(scenario: Scenario) -> AsyncResult[Any]:
    result: AsyncResult[Any] = scenario.task.apply_async(scenario.args, scenario.kwargs, **scenario.options)
    return result


def told(result: AsyncResult[Any], lines: list[list[Any]]) -> Told:
    """Ask the result, and choose among what was written down."""
    own = [line[1:] for line in lines if line[0] == result.id]
    # A call is known by what it was sent with: its id is another one each time.
    labels = {line[0]: str(line[2:5]) for line in own if line[1] == "before_task_publish"}
    events = defaultdict(list)
    for task_id, *event in own:
        events[labels[task_id]].append(_without(result.id, event))
    bodies = [event for event in events[labels[result.id]] if event[0] == "body"]
    unwanted = any(body[1]["ignore_result"] for body in bodies)
    state = result.state
    if state == "IGNORED" or (unwanted and state in ("SUCCESS", "PENDING")) or not result.exists():
        # It leaves no row. An eager result knows all the same how it ended, a stored one cannot.
        return Told("dropped", events=dict(events))
    try:
        got = None if unwanted else result.get(timeout=PATIENCE)
    except BaseException as error:
        got = error
    return Told(
        state,
        _without(result.id, result.result),
        _without(result.id, got),
        (result.traceback or "").rstrip().rpartition("\n")[2].partition(" at 0x")[0].replace(result.id, "ID"),
        (result.name, jobs.shown(result.args), jobs.shown(result.kwargs), result.retries, result.queue),
        (result.ready(), result.successful(), result.failed(), result.date_done is not None),
        dict(events),
    )


def _without(task_id: str, value: Any) -> Any:
    return json.loads(json.dumps(jobs.shown(value)).replace(task_id, "ID"))


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let everything be written down, here and in workers."""
    monkeypatch.setenv(jobs.EVENTS, str(tmp_path / "events"))
    monkeypatch.setenv(jobs.LISTEN, "1")
    with override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, **SETTINGS}), jobs.listening():
        yield


#: What eager mode cannot do as a worker does, by scenario and part of the record; docs/how-to/testing.md tells of it.
EAGER_DIFFERENCES: dict[str, dict[str, str]] = {
    "failure with arguments that cannot be stored": {
        "result": "the exception itself is at hand, so nothing of it is lost",
        "get": "likewise",
    },
    "atomic failure": {"events": "what the task sent ran before the rollback"},
}

#: What a worker made of all scenarios, by kind of database.
_by_worker: dict[str, dict[str, Told]] = {}


def by_worker(kind: str) -> dict[str, Told]:
    """Let one real worker run all scenarios, once for each kind of database."""
    if kind not in _by_worker:
        sent = {name: send(scenario) for name, scenario in SCENARIOS.items()}
        with worker(imports=[jobs.__name__]):
            eventually(lambda: not Task.objects.exists(), timeout=PATIENCE, message="the worker is not done")
        lines = jobs.read_events()  # the last ones are written after the last result: it has ended by now
        _by_worker[kind] = {name: told(result, lines) for name, result in sent.items()}
        Group.objects.all().delete()
    return _by_worker[kind]


def run_eagerly(scenario: Scenario) -> AsyncResult[Any]:
    with eager_tasks(propagate=False):
        result = send(scenario)
    assert isinstance(result, EagerResult)
    return result


def run_in_process(scenario: Scenario) -> AsyncResult[Any]:
    result = send(scenario)
    run_tasks(with_scheduled=True, failures="collect")
    return result


@pytest.mark.parametrize("run", [run_eagerly, run_in_process])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_task_comes_to_the_same_here_and_in_a_worker(
    scenario: str, run: Callable[[Scenario], AsyncResult[Any]], database: TestDatabase, events: None
) -> None:
    expected = by_worker(database.kind)[scenario]
    found = told(run(SCENARIOS[scenario]), jobs.read_events())
    different = EAGER_DIFFERENCES.get(scenario, {}) if run is run_eagerly else {}
    for name in different:
        assert getattr(found, name) != getattr(expected, name), "it is no difference any more: take it off the list"
    assert replace(found, **{name: getattr(expected, name) for name in different}) == expected


def test_the_scenarios_tell_states_and_events_apart(database: TestDatabase, events: None) -> None:
    """The record that is compared holds what it should: else two empty ones would be equal, too."""
    found = by_worker(database.kind)
    assert Counter(one.state for one in found.values()) == {"SUCCESS": 22, "FAILURE": 20, "REVOKED": 2, "dropped": 3}
    exhausted = found["retry to exhaustion"]
    assert exhausted.result == exhausted.get == ["tests.behaviour.jobs.Odd", "('attempt 2',)"]
    assert exhausted.details[3] == 2
    [names] = [[event[0] for event in events] for events in exhausted.events.values()]
    again = ["task_prerun", "before_start", "body", "on_retry", "task_retry", "task_postrun"]
    last = ["task_prerun", "before_start", "body", "on_failure", "task_failure", "after_return", "task_postrun"]
    assert names == ["before_task_publish", "after_task_publish", *again, *again, *last]
    assert len(found["tasks that send tasks"].events) == 4
