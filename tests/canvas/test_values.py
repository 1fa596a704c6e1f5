"""What workflows return: the same in the caller as from a worker, and what Celery returns for the same canvas."""

from __future__ import annotations

from typing import Any

import pytest

from django_tasks import chain, chord, group
from tests.api.conftest import Runner
from tests.canvas.jobs import add, listed, replacing, shaky, summed, total

pytestmark = pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")

I = listed  # noqa: E741 - it returns its arguments

#: Canvases, and what Celery 5.7 with Redis returns for them.
CANVASES: dict[str, tuple[Any, Any]] = {
    "chain": (lambda: chain(add.s(1, 2), add.s(3), add.s(4)), 10),
    "immutable step": (lambda: chain(add.s(1, 2), add.si(3, 4)), 7),
    "group": (lambda: group(add.s(1), add.s(2)), [2, 3]),
    "group of a generator": (lambda: group(add.s(number) for number in range(5)), [1, 2, 3, 4, 5]),
    "group in a group": (lambda: group(group(I.s("a"), I.s("b")), I.s("c")), [["a"], ["b"], ["c"]]),
    "group of nothing": (lambda: group(), []),
    "chord": (lambda: chord([add.s(1), add.s(2)], total.s()), 5),
    "header of one": (lambda: chord([I.s("a")], summed.s()), ["sum", [["a"]]]),
    "header of nothing": (lambda: chord([], summed.s()), ["sum", []]),
    "header of nothing in a chain": (lambda: chain(I.s("p"), chord([], summed.s())), ["sum", []]),
    "group of one in a chain": (lambda: chain(I.s("z"), group(I.s("a")), summed.s()), ["sum", [["z"], "a"]]),
    "group of nothing in a chain": (lambda: chain(I.s("a"), group(), summed.s()), ["sum", ["a"]]),
    "immutable body": (lambda: chord([I.s("a"), I.s("b")], I.si("x")), ["x"]),
    "chain that ends in a group, in a header": (
        lambda: chord([chain(I.s("a"), group(I.s("b"), I.s("c"))), I.s("d")], summed.s()),
        ["sum", [[[["a"], "b"], [["a"], "c"]], ["d"]]],
    ),
    "chain that ends in a group, in a group": (
        lambda: group(chain(I.s("a"), group(I.s("b"), I.s("c"))), I.s("d")),
        [[[["a"], "b"], [["a"], "c"]], ["d"]],
    ),
    "chord in a header": (
        lambda: chord([chord([I.s("a"), I.s("b")], summed.s()), I.s("d")], summed.s()),
        ["sum", [["sum", [["a"], ["b"]]], ["d"]]],
    ),
    "group as body": (
        lambda: chord([I.s("a"), I.s("b")], group(I.s("x"), I.s("y"))),
        [[[["a"], ["b"]], "x"], [[["a"], ["b"]], "y"]],
    ),
    "group onto a group": (
        lambda: group(I.s("a"), I.s("b")) | group(I.s("x"), I.s("y")),
        [[[["a"], ["b"]], "x"], [[["a"], ["b"]], "y"]],
    ),
    "task, group, group, task": (
        lambda: I.s("a") | group(I.s("b"), I.s("c")) | group(I.s("x"), I.s("y")) | summed.s(),
        ["sum", [[[[["a"], "b"], [["a"], "c"]], "x"], [[[["a"], "b"], [["a"], "c"]], "y"]]],
    ),
    "map": (lambda: add.map([1, 2]), [2, 3]),
    "starmap": (lambda: add.starmap([(1, 2), (3, 4)]), [3, 7]),
    "chunks": (lambda: add.chunks([(1, 2), (3, 4), (5, 6)], 2), [[3, 7], [11]]),
    "chunks, then a task": (
        lambda: add.chunks([(1, 2), (3, 4), (5, 6)], 2).group() | summed.s(),
        ["sum", [[3, 7], [11]]],
    ),
    "a member that is retried": (lambda: chord([shaky.s(1, 2), add.s(1)], total.s()), 3),
    "replaced by a task": (lambda: chain(replacing.s(1, "task"), add.s(100)), 111),
    "replaced by a group": (lambda: chain(replacing.s(1, "group"), summed.s()), ["sum", [2, 3]]),
    "replaced by a chain": (lambda: chain(replacing.s(1, "chain"), summed.s()), ["sum", 3]),
    "replaced by a chord": (lambda: chain(replacing.s(1, "chord"), summed.s()), ["sum", 5]),
    "replaced by a chain that ends in a group": (
        lambda: chain(replacing.s(1, "chain of group"), summed.s()),
        ["sum", [3, 4]],
    ),
    "replaced in a header": (
        lambda: chord([replacing.s(1, "group"), replacing.s(2, "chain"), add.s(1, 1)], summed.s()),
        ["sum", [[2, 3], 4, 2]],
    ),
}


@pytest.mark.parametrize("name", CANVASES)
def test_a_canvas_returns_what_it_does_in_celery(run: Runner, name: str) -> None:
    make, expected = CANVASES[name]
    result = make().apply_async()
    run.finish()
    assert result.get(timeout=0) == expected
