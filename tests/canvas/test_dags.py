"""Workflows of named parts."""

from __future__ import annotations

from typing import Any

import pytest

from django_tasks import batch, chain, chord, dag, group
from django_tasks.canvas.taking_over import taking_over
from django_tasks.models import Task
from django_tasks.request import Context
from tests.api.conftest import Runner
from tests.canvas.conftest import assert_nothing_is_left
from tests.canvas.jobs import add, boom, listed, note, note_error, notes, summed, total

pytestmark = pytest.mark.databases("sqlite", "postgresql", "redis")


def finish(run: Runner, flow: dag) -> dict[str, Any]:
    """Run it to its end; return what became of each part."""
    result = flow()
    run.finish()
    assert_nothing_is_left()
    return {name: _value(one) for name, one in result.items()}


def _value(result: Any) -> Any:
    return result.get(timeout=0, propagate=False)


def test_each_part_takes_in_what_it_comes_after(run: Runner) -> None:
    flow = dag()
    flow.add("one", add.s(0)).add("two", add.s(1))
    flow.add("single", add.s(10), after="one")
    flow.add("several", total.s(), after=["one", "two", "single"])
    flow.add("immutable", listed.si("alone"), after=["several", "two"])
    assert finish(run, flow) == {"one": 1, "two": 2, "single": 11, "several": 14, "immutable": ["alone"]}


def test_parts_may_be_canvases(run: Runner) -> None:
    flow = dag()
    flow.add("chain", chain(add.s(1), add.s(1)))
    flow.add("group", group(listed.s("a"), listed.s("b")), after="chain")
    flow.add("chord", chord([listed.s("c"), listed.s("d")], summed.s()), after=["group", "chain"])
    flow.add("end", summed.s(), after="group")
    both = [[3, "a"], [3, "b"]]
    assert finish(run, flow) == {
        "chain": 3,
        "group": both,
        "chord": ["sum", [[[both, 3], "c"], [[both, 3], "d"]]],
        "end": ["sum", both],
    }


def test_what_comes_after_a_failure_is_not_run_and_fails_with_it_unless_it_runs_always(run: Runner) -> None:
    flow = dag()
    flow.add("good", note.s("good")).add("bad", boom.s().on_error(note_error.s()))
    flow.add("after", note.s().on_error(note_error.s()), after=["good", "bad"])
    flow.add("further", group(note.s(), note.s()), after=["after", "good"])
    flow.add("always", listed.s(), after=["good", "further"], always=True)
    flow.add("alone", listed.s(), after="bad", always=True)
    found = finish(run, flow)
    assert [str(found[name]) for name in ("bad", "after")] == ["boom", "boom"]
    assert [str(one) for one in found["further"]] == ["boom", "boom"]
    assert len([one for one in notes if one == "good"]) == 1
    assert len(notes) == 2
    [[good, further]] = found["always"]
    assert good["result"] == "good"
    assert [one["error"] for one in further] == ["ValueError: boom"] * 2
    [alone] = found["alone"]
    assert (alone["state"], alone["error"]) == ("FAILURE", "ValueError: boom")


def test_options_are_those_of_all_parts(run: Runner) -> None:
    if run.is_eager:
        pytest.skip("nothing is stored there")
    flow = dag().add("one", add.s(1)).add("two", add.s(1).set(priority=7), after="one")
    result = flow.apply_async(priority=3, countdown=30)
    rows = {str(row.pk): row for row in Task.objects.all()}
    assert [rows[result[name].id].priority for name in ("one", "two")] == [3, 7]
    assert rows[result["one"].id].due_at > rows[result["two"].id].due_at


def test_mistakes_are_told_where_they_are_made() -> None:
    flow = dag().add("one", add.s(1))
    with pytest.raises(ValueError, match="has a part 'one' already"):
        flow.add("one", add.s(1))
    with pytest.raises(ValueError, match="'two' comes after 'zero', which the dag does not have; it has 'one'"):
        flow.add("two", add.s(1), after=["one", "zero"])
    with pytest.raises(ValueError, match="so always=True means nothing"):
        flow.add("two", add.s(1), always=True)
    with pytest.raises(TypeError, match="takes a signature"):
        flow.add("two", add)
    with pytest.raises(ValueError, match="The dag has no part"):
        dag()()


def _replace(flow: dag) -> Any:
    return taking_over(flow, Context())


@pytest.mark.parametrize(
    "make",
    [
        lambda flow: chain(add.s(1), flow),
        lambda flow: add.s(1) | flow,
        lambda flow: flow | add.s(1),
        lambda flow: group(flow),
        lambda flow: group([add.s(1), flow]),
        lambda flow: chord([flow], total.s()),
        lambda flow: chord([add.s(1)], flow),
        lambda flow: chord([add.s(1)])(flow),
        lambda flow: batch([flow]),
        lambda flow: batch([add.s(1)], on_complete=flow),
        lambda flow: dag().add("inner", flow),
        lambda flow: add.s(1).link(flow),
        lambda flow: add.s(1).on_error(flow),
        lambda flow: add.apply_async((1,), link=flow),
        _replace,
    ],
)
def test_a_dag_is_part_of_nothing_else_and_the_error_says_what_to_do_instead(make: Any) -> None:
    with pytest.raises(TypeError, match="A dag is part of nothing else: add the rest to it"):
        make(dag().add("one", add.s(1)))
