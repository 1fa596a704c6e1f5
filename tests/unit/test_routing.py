from __future__ import annotations

import re
import time
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from hypothesis import example, given
from hypothesis import strategies as st

from django_tasks.routing import check_routes, route, validate_priority, validate_queue


def routes(value: Any) -> override_settings:
    return override_settings(DJANGO_TASKS={"TASK_ROUTES": value})


def to(name: str) -> dict[str, Any]:
    return route(name, (), {}, {})


def by_size(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **kw: Any) -> Any:
    """Route large calls away; named by its dotted path in a test."""
    return {"queue": "large"} if len(args) > 3 else None


not_a_router = 5


def test_without_routes_there_is_nothing_to_say() -> None:
    nothing: Any
    for nothing in (None, {}, [], ()):
        with routes(nothing):
            assert to("app.tasks.add") == {}
            assert check_routes() == []


APPS, MATH, MEDIA = "apps", {"queue": "math", "priority": 5}, "media"
FILM = re.compile(r"(img|film)\.")


@pytest.mark.parametrize(
    "value",
    [
        {"app.tasks.*": APPS, "app.tasks.add": MATH, FILM: MEDIA},
        [("app.tasks.*", APPS), ("app.tasks.add", MATH), (FILM, MEDIA)],
        ([("app.tasks.*", APPS), ("app.tasks.add", MATH), (FILM, MEDIA)],),
        [{"app.tasks.add": MATH}, ["app.tasks.*", APPS], {FILM: MEDIA}],
    ],
)
def test_names_come_before_patterns_in_every_form_of_the_setting(value: Any) -> None:
    with routes(value):
        assert to("app.tasks.add") == {"queue": "math", "priority": 5}
        assert to("app.tasks.sub") == {"queue": "apps"}
        assert to("film.cut") == {"queue": "media"}
        assert to("myfilm.cut") == {}
        assert to("app.tasks") == {}
        assert check_routes() == []


def test_a_router_sees_the_call_and_the_first_answer_counts() -> None:
    seen: list[Any] = []

    def silent(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **kw: Any) -> None:
        seen.append((name, args, kwargs, options, task))

    with routes(
        [silent, lambda *args, **kwargs: {}, {"other": "elsewhere"}, lambda *args, **kwargs: "found", {"a.b": "late"}]
    ):
        assert route("a.b", (1,), {"c": 2}, {"queue": "own"}, "the task") == {"queue": "found"}
    assert seen == [("a.b", (1,), {"c": 2}, {"queue": "own"}, "the task")]


def test_a_router_may_be_named_by_its_dotted_path() -> None:
    path = f"{__name__}.by_size"
    for value in (path, [path], (path, {"a": "b"})):
        with routes(value):
            assert route("x", (1, 2, 3, 4), {}, {}) == {"queue": "large"}
            assert route("x", (1,), {}, {}) == {}
            assert check_routes() == []


def test_a_changed_setting_is_followed() -> None:
    with routes({"a.*": "one"}):
        assert to("a.b") == {"queue": "one"}
        with routes({"a.*": "two"}):
            assert to("a.b") == {"queue": "two"}
        assert to("a.b") == {"queue": "one"}


def test_what_was_returned_is_the_callers_own() -> None:
    with routes({"a": {"queue": "one"}}):
        to("a")["queue"] = "changed"
        assert to("a") == {"queue": "one"}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"routing_key": "keyed"}, {"queue": "keyed"}),
        ({"exchange": "exchanged"}, {"queue": "exchanged"}),
        ({"queue": "named", "routing_key": "keyed", "exchange": "exchanged"}, {"queue": "named"}),
        ({"priority": 0}, {"priority": 0}),
        ({"queue": None, "priority": None}, {}),
    ],
)
def test_amqps_words_mean_the_queue(value: Any, found: dict[str, Any]) -> None:
    with routes({"a": value}):
        assert to("a") == found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": {"queue": "a b"}}, "TASK_ROUTES, for 'a', gives what is no route: queue is 'a b'; allowed: 1 to 64"),
        ({"a": {"priority": 200}}, "priority is 200; allowed: a whole number from -100 to 100"),
        ({"a": {"serializer": "json"}}, "a route has no key 'serializer'; allowed: queue, priority, routing_key"),
        ({"a": 5}, "a route is 5; allowed: a queue's name, or a dict"),
        ({5: "a"}, "TASK_ROUTES has the key 5; allowed: a task's name, a glob"),
        ([5], "TASK_ROUTES has 5; allowed: a dict, a list of pairs"),
        ([[("a", "b"), "c"]], "TASK_ROUTES has 'c'; allowed: a pair (pattern, route)."),
        ("no.such.router", "TASK_ROUTES names the router 'no.such.router': No module named 'no'"),
        (f"{__name__}.missing", "does not define a \"missing\""),
        (f"{__name__}.not_a_router", "which is no function"),
    ],
)  # fmt: skip
def test_a_malformed_setting_is_told_at_once_and_at_use(value: Any, text: str) -> None:
    with routes(value):
        [problem] = check_routes()
        assert text in problem
        with pytest.raises(ImproperlyConfigured) as caught:
            to("a")
        assert str(caught.value) == problem


def test_what_a_router_function_returns_is_checked() -> None:
    with routes(lambda *args, **kwargs: {"queue": "a b"}), pytest.raises(ValueError, match="queue is 'a b'; allowed"):
        to("a")
    with routes(lambda *args, **kwargs: ["a"]), pytest.raises(TypeError, match=r"a route is \['a'\]; allowed"):
        to("a")


@given(st.text(max_size=70))
@example("!")
def test_a_queue_name_is_made_of_a_few_characters(name: str) -> None:
    if 1 <= len(name) <= 64 and not re.search(r"[^\w.:-]", name, flags=re.ASCII):
        assert validate_queue(name) is name
    else:
        with pytest.raises(ValueError, match="allowed: 1 to 64 of the characters"):
            validate_queue(name)


@pytest.mark.parametrize("name", ["a\n", "é", "a/b", "٣", "a" * 65, ""])
def test_a_hostile_queue_name_is_refused(name: str) -> None:
    """S11."""
    with pytest.raises(ValueError, match="allowed"):
        validate_queue(name)
    with pytest.raises(TypeError, match="queue is None; allowed"):
        validate_queue(None)


@given(st.integers())
def test_a_priority_lies_between_minus_and_plus_a_hundred(value: int) -> None:
    if -100 <= value <= 100:
        assert validate_priority(value) == value
    else:
        with pytest.raises(ValueError, match="allowed: a whole number from -100 to 100"):
            validate_priority(value)


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_a_priority_is_a_whole_number(value: Any) -> None:
    with pytest.raises(TypeError, match="allowed: a whole number from -100 to 100"):
        validate_priority(value)


def test_a_thousand_patterns_cost_a_known_name_nothing() -> None:
    with routes({f"app{number}.*": "q" for number in range(1000)} | {"last.*": "found"}):
        to("last.one")
        start = time.perf_counter()
        for _ in range(1000):
            to("last.one")
        assert time.perf_counter() - start < 0.05  # a thousand matches each time would take seconds
