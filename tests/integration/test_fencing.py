"""Workers that stand still for longer than their lease, and come back."""

from __future__ import annotations

import pytest

from tests.eventually import eventually
from tests.integration.jobs import wait_at_gate, work
from tests.integration.site import SHORT_LEASE, Site
from tests.servers import is_alive

# A process that is stopped within a transaction would block every writer of SQLite; a server ends the statement alone.
pytestmark = pytest.mark.databases("postgresql")


def test_a_child_frozen_for_longer_than_the_lease_keeps_its_task(site: Site) -> None:
    """R5: the lease is the worker's, and its supervisor renews it."""
    worker = site.start(concurrency=1, **SHORT_LEASE)
    other = site.start(concurrency=1, **SHORT_LEASE)
    result = wait_at_gate.delay(str(site.gates))
    start = site.wait_for_start(result)
    [frozen] = [child for each in (worker, other) for child in each.children() if child.pid == start.pid]
    frozen.suspend()
    # Meanwhile the other worker lives through more than a lease, and would have rescued what can be rescued.
    sentinel = work.delay(1.5 * SHORT_LEASE["WORKER_LEASE"])
    assert sentinel.get(timeout=60)
    frozen.resume()
    site.open_gate(start)
    assert result.get(timeout=60) == start.attempt
    assert site.account([result, sentinel]).reruns == 0


def test_a_worker_that_lost_its_lease_cannot_overwrite_what_its_successor_does(site: Site) -> None:
    """R4, R5: the zombie's answer is refused, whether it comes before or after the right one; then it begins anew."""
    zombie = site.start(concurrency=2, **SHORT_LEASE)
    early, late = (wait_at_gate.delay(str(site.gates)) for _ in range(2))
    early_start, late_start = site.wait_for_start(early), site.wait_for_start(late)
    children = zombie.children()
    zombie.freeze()
    successor = site.start(concurrency=2, **SHORT_LEASE)
    second_early, second_late = site.wait_for_start(early, 2), site.wait_for_start(late, 2)
    # The zombie's children alone go on and end their attempts while the successor still works on one of them.
    site.open_gate(second_late)
    assert late.get(timeout=60) == second_late.attempt
    site.open_gate(early_start)
    site.open_gate(late_start)
    for child in children:
        child.resume()
    site.wait_for_entries(1, "end", task_id=early.id)
    site.wait_for_entries(2, "end", task_id=late.id)
    eventually(lambda: zombie.said().count("its outcome is dropped") == 2, timeout=60)
    assert early.state == "STARTED"
    site.open_gate(second_early)
    assert early.get(timeout=60) == second_early.attempt
    assert late.state == "SUCCESS"
    # Its supervisor finds out, ends what it still has, and takes tasks again.
    zombie.thaw()
    zombie.wait_until_it_says("begins anew")
    assert successor.stop() == 0
    eventually(lambda: not any(is_alive(child) for child in children), timeout=60)
    fresh = work.delay()
    assert fresh.get(timeout=60)
    site.account([early, late, fresh])
