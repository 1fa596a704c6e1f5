from __future__ import annotations
from typing import Any
import pytest
from django_tasks import shared_task, Task
from tests.api.conftest import Runner
pytestmark = pytest.mark.databases("sqlite")

def test_add(run: Runner) -> None:
    @shared_task
    def add(x: int, y: int) -> int:
        return x + y
    r = run(add, 2, 3)
    assert r.state == "SUCCESS"
    assert r.get() == 5
    assert (r.name, r.args, r.kwargs, r.retries, r.queue) == (add.name, [2, 3], {}, 0, "default")

def test_retry(run: Runner) -> None:
    @shared_task(bind=True)
    def flaky(self: Task[..., Any], x: int) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=60, kwargs={"x": x + 1})
        return x + self.request.retries
    r = run(flaky, 2)
    assert r.get() == 6
    assert r.retries == 2
