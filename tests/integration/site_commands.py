"""Commands that a site declares, as workers load them by ``IMPORTS``."""

from __future__ import annotations

import time
from typing import Any

from django_tasks.control import control_command, inspect_command


@control_command(args=[("n", int)], signature="[N=1]")
def add_to(state: Any, n: int = 1) -> dict[str, str]:
    """Add a number to the name of the node."""
    return {"ok": f"{state.hostname}+{n}"}


@inspect_command(alias="dump_surroundings", visible=False)
def look_around(state: Any) -> dict[str, Any]:
    """Tell what a command can see."""
    consumer = state.consumer
    return {
        "hostname": consumer.hostname,
        "processes": consumer.pool.num_processes,
        "knows_work": "tests.integration.jobs.work" in state.tasks,
    }


@inspect_command
def fail(state: Any) -> None:
    """Raise."""
    raise ValueError("nope")


@inspect_command()
def say_nothing(state: Any) -> None:
    """Return nothing."""


@inspect_command(name="leave")
def exit_from_here(state: Any) -> None:
    """Try to end the worker."""
    raise SystemExit(3)


@inspect_command()
def tell_what_is_no_json(state: Any) -> Any:
    """Return what JSON cannot say."""
    return {(1, 2): object()}


@control_command()
def hang(state: Any) -> None:
    """Take for ever."""
    time.sleep(3_600)
