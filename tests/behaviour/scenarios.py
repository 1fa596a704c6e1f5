"""What is tried in every way of running tasks: a task, its arguments, the options of the call."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.behaviour import jobs


@dataclass(frozen=True)
class Scenario:
    """One call."""

    task: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


MANY_OPTIONS: dict[str, Any] = {
    "queue": "mail", "priority": 9, "headers": {"tenant": "acme", "at": datetime(2026, 1, 1, tzinfo=UTC)},
    "shadow": "a name", "argsrepr": "(…)", "kwargsrepr": "{…}", "app_id": "shop", "expires": 3600,
    "serializer": "msgpack", "compression": "gzip",
}  # fmt: skip

SCENARIOS: dict[str, Scenario] = {
    "success": Scenario(jobs.succeed),
    "arguments of every type": Scenario(jobs.succeed, (jobs.EVERYTHING,), jobs.EVERYTHING),
    "None": Scenario(jobs.nothing),
    "failure with an error of its own": Scenario(jobs.fail, ("own",)),
    "failure that is expected": Scenario(jobs.fail, ("expected",)),
    "failure with a builtin error": Scenario(jobs.fail, ("builtin",)),
    "failure with a cause": Scenario(jobs.fail, ("chained",)),
    "failure with arguments that cannot be stored": Scenario(jobs.fail, ("unstorable",)),
    "SystemExit": Scenario(jobs.fail, ("exit",)),
    "a result that cannot be stored": Scenario(jobs.fail, ("result",)),
    "retry to success": Scenario(jobs.retry, (2,)),
    "retry to exhaustion": Scenario(jobs.retry, (9,)),
    "retry with a delay": Scenario(jobs.retry, (1,), {"countdown": 0.05}),
    "retry with a limit of its own": Scenario(jobs.retry, (9,), {"max_retries": 1}),
    "retry with other arguments": Scenario(jobs.retry, (1,), {"args": [1], "kwargs": {"countdown": 0}}),
    "retry in another queue": Scenario(jobs.retry, (1,), {"queue": "slow", "priority": -3, "headers": {"a": 1}}),
    "retry with a bad option": Scenario(jobs.retry, (1,), {"countdown": "soon"}),
    "retry without a reason": Scenario(jobs.retry_without_reason),
    "retry without throwing": Scenario(jobs.retry_and_go_on),
    "automatic retry with backoff to success": Scenario(jobs.retried_by_itself, (2,)),
    "automatic retry to exhaustion": Scenario(jobs.retried_by_itself, (9,)),
    "no automatic retry": Scenario(jobs.retried_by_itself, (9, "odder")),
    "no automatic retry for another error": Scenario(jobs.retried_by_itself, (9, "value")),
    "ignore": Scenario(jobs.end, ("ignore",)),
    "reject": Scenario(jobs.end, ("reject",)),
    "reject and requeue": Scenario(jobs.end, ("requeue",)),
    "told to be a failure": Scenario(jobs.end, ("FAILURE",)),
    "told to be a success": Scenario(jobs.end, ("SUCCESS",)),
    "progress": Scenario(jobs.end, ("progress",)),
    "expired": Scenario(jobs.succeed, ("never",), {}, {"expires": -1}),
    "expired at a moment": Scenario(jobs.succeed, ("never",), {}, {"expires": datetime(2000, 1, 1, tzinfo=UTC)}),
    "not expired": Scenario(jobs.succeed, ("in time",), {}, {"expires": 3600}),
    "countdown": Scenario(jobs.succeed, ("later",), {}, {"countdown": 0.1}),
    "eta in the past": Scenario(jobs.succeed, ("at once",), {}, {"eta": datetime(2000, 1, 1, tzinfo=UTC)}),
    "many options": Scenario(jobs.succeed, ("x",), {"y": 1}, MANY_OPTIONS),
    "declared options": Scenario(jobs.declared, (), jobs.EVERYTHING | {"int": 2}),
    "declared options, other ones": Scenario(jobs.declared, (), {}, {"queue": "given", "priority": 1}),
    "a result that nobody wants": Scenario(jobs.unheard, (False,)),
    "a result that the call does not want": Scenario(jobs.succeed, (), {}, {"ignore_result": True}),
    "a failure although nobody wants the result": Scenario(jobs.unheard, (True,)),
    "atomic success": Scenario(jobs.all_or_nothing, ("good", False)),
    "atomic failure": Scenario(jobs.all_or_nothing, ("bad", True)),
    "tasks that send tasks": Scenario(jobs.outer, (2,)),
    "a task that goes on in the next one": Scenario(jobs.continued, (["a", "b"],)),
    "arguments that do not fit": Scenario(jobs.strict, (1, 2)),
    "asynchronous success": Scenario(jobs.asynchronous, (False,)),
    "asynchronous failure": Scenario(jobs.asynchronous, (True,)),
}
