from __future__ import annotations

import collections
import dataclasses
import enum
import json
import subprocess
import sys
import tracemalloc
import types
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import example, given
from hypothesis import strategies as st

from django_tasks import typed_json
from django_tasks.exceptions import (
    DecodeError,
    EncodeError,
)
from django_tasks.serialization import (
    dumps,
    loads,
    storable,
)

from .values import JSON_ONLY, nested, same, scalars, tagged, texts


@given(nested(scalars | tagged))
@example({"__type__": "datetime", "__value__": "2026-01-01"})
@example({"__type__": "datetime", "__value__": {"__type__": "dict", "__value__": []}})
@example({"__type__": "datetime"})
@example([2**63, 2**64, -(2**70), 10**4000])
@example([-0.0, 1e16, 5e-324, 1.7976931348623157e308])
@example("\udc00 \ud800 \x00")
@example("1-2-3-4-5")
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    encoding, text = dumps(value)
    assert encoding == ""
    assert storable(text) == text
    assert same(loads(text, encoding, JSON_ONLY), value)


@given(nested(scalars | tagged | st.sampled_from([float("nan"), float("inf"), {1, 2}, object()])))
def test_both_ways_of_writing_mean_the_same(value: Any) -> None:
    try:
        text = typed_json.encode(value)
    except EncodeError:
        with pytest.raises(EncodeError):
            typed_json.encode_portably(value)
    else:
        other = typed_json.encode_portably(value)
        assert same(typed_json.decode(text), typed_json.decode(other))


@given(
    st.text(st.sampled_from('[]{}",:\\0123456789.eE+-nulltruefase_ypv \x00\ud800'), max_size=60)
    | nested(scalars).map(json.dumps)
    | nested(st.floats()).map(lambda value: json.dumps(value, indent=1))
    | st.builds(lambda kind, value: json.dumps({"__type__": kind, "__value__": value}), texts | st.sampled_from(
        ["datetime", "date", "time", "timedelta", "decimal", "uuid", "bytes", "base64", "dict"]), nested(scalars))
)  # fmt: skip
@example('{"a":1,"a":2}')
@example('{"a":1,"\\u0061":2}')
@example("18446744073709551616")
@example("1e400")
@example("-1" + "0" * 5000)
@example('"\\ud800"')
@example('{"__type__":"decimal","__value__":"sNaN"}')
@example('{"__type__":"timedelta","__value__":[1e9,0,0]}')
@example('{"__type__":"timedelta","__value__":[9999999999,0,0]}')
@example('{"__type__":"uuid","__value__":{"hex":5}}')
@example('{"__type__":["a"],"__value__":1}')
def test_both_ways_of_reading_agree_and_raise_nothing_but_ours(text: str) -> None:
    """S1."""
    try:
        expected = typed_json.decode_portably(text)
    except DecodeError:
        with pytest.raises(DecodeError):
            loads(text, "", JSON_ONLY)
    else:
        # NaN cannot be read, but a Decimal may be one.
        assert repr(loads(text, "", JSON_ONLY)) == repr(expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ('{"a": 1, "a": 2}', "same key twice"),
        ("[NaN]", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("1e999", "a number is too large"),
        ("9" * 5000, "4300"),
        ("[" * 65 + "]" * 65, "nested deeper than 64 levels"),
        ("[" * 100_000, "not JSON"),
        ('{"a":' * 100_000, "not JSON"),
        ('{"__type__":"os.system","__value__":"true"}', "unknown type 'os.system'"),
        ('{"__type__":"datetime","__value__":"now"}', "is no datetime: 'now'"),
        ('{"__type__":"dict","__value__":[["a",1],["a",2]]}', "is no dict"),
    ],
)
def test_json_is_read_strictly(text: str, reason: str) -> None:
    """S1."""
    with pytest.raises(DecodeError) as caught:
        loads(text, "", JSON_ONLY)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "unit", ["{},", "[],", '"",', "1e9,", '{"a":1},', "[[[[]]]],", '{"__type__":"date","__value__":"2026-01-01"},']
)
def test_hostile_text_needs_little_more_memory_than_its_values(unit: str) -> None:
    """S1: Python itself keeps a list that two characters make in up to 88 bytes."""
    text = f"[{unit * (1_000_000 // len(unit))}1]"
    tracemalloc.start()
    loads(text, "", JSON_ONLY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * len(text)


def test_sixty_four_levels_are_allowed_in_both_directions() -> None:
    value: Any = 1
    for _ in range(64):
        value = [value]
    assert loads(dumps(value)[1], "", JSON_ONLY) == value
    assert loads(dumps({"a": [{}] * 100})[1], "", JSON_ONLY) == {"a": [{}] * 100}
    for deeper in ([value], {"a": value}):
        with pytest.raises(EncodeError, match="deeper than 64 levels"):
            dumps(deeper)
    shallow: Any = datetime(2026, 1, 1)
    for _ in range(63):
        shallow = [shallow]
    assert loads(dumps(shallow)[1], "", JSON_ONLY) == shallow
    with pytest.raises(EncodeError, match="deeper than 64 levels"):
        dumps([shallow])


def test_a_value_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(EncodeError, match="contains itself"):
        dumps(endless)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Answer(enum.StrEnum):
    YES = "yes"


class Jsonable:
    def __json__(self) -> dict[str, Any]:
        return {"day": date(2026, 1, 2)}


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize("encode", [typed_json.encode, typed_json.encode_portably])
@pytest.mark.parametrize(
    ("value", "back"),
    [
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        (Colour.RED, "red"),
        ([Level.HIGH, Answer.YES], [3, "yes"]),
        ({Answer.YES: True, Level.HIGH: 1}, {"yes": True, "3": 1}),
        ({1: "a", None: "b", False: "c", 1.5: "d"}, {"1": "a", "null": "b", "false": "c", "1.5": "d"}),
        (mark_safe("<b>"), "<b>"),
        (gettext_lazy("Yes"), "Yes"),
        ({"title": gettext_lazy("Yes")}, {"title": "Yes"}),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"\xff"), b"\xff"),
        (collections.OrderedDict(a=1), {"a": 1}),
        (Jsonable(), {"day": date(2026, 1, 2)}),
        (datetime(2026, 1, 2, 3, 4, 5, 6, UTC), datetime(2026, 1, 2, 3, 4, 5, 6, UTC)),
    ],
)
def test_values_near_to_jsons_become_what_they_stand_for(encode: Any, value: Any, back: Any) -> None:
    assert same(typed_json.decode(encode(value)), back)


def test_a_querydict_gives_what_indexing_it_gives() -> None:
    from django.http import QueryDict

    assert loads(dumps(QueryDict("a=1&a=2&b=3"))[1], "", JSON_ONLY) == {"a": "2", "b": "3"}


@dataclasses.dataclass
class Order:
    number: int


def a_generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("encode", [typed_json.encode, typed_json.encode_portably])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([[1], {"user": {"tags": {1, 2}}}], "value[1]['user']['tags']: JSON has no set; send a list"),
        (frozenset(), "JSON has no frozenset; send a list"),
        (a_generator(), "a generator can be read only once; send a list"),
        ({}.keys(), "JSON has no dict_keys; send a list or a dict of its values"),
        (types.MappingProxyType({}), "JSON has no mappingproxy; send a list or a dict"),
        (object(), "JSON has no object; send plain values"),
        (Order(1), "test_typed_json.Order; send plain values"),
        (len, "JSON has no builtin_function_or_method"),
        ([float("nan")], "value[0]: JSON has no NaN and no Infinity; send None or a text"),
        ([None, float("-inf")], "value[1]: JSON has no NaN"),
        ({"a": None, "b": float("nan")}, "value['b']: JSON has no NaN"),
        ({(1, 2): 3}, "a key of the dict is a tuple; JSON's keys are texts"),
        ({uuid.UUID(int=0): 3}, "is a uuid.UUID; JSON's keys are texts"),
        ({1: "a", "1": "b"}, "two keys of a dict become '1'"),
        pytest.param(10**5000, "4300", id="huge"),
        pytest.param({10**5000: 1}, "4300", id="huge key"),
        (ContentType(pk=5), "send its primary key, 5, and read it in the task"),
        ([ContentType.objects.all()], "value[0]: a QuerySet holds model instances; send ids: queryset.values_list"),
        (ContentType.objects.raw("SELECT 1"), "a QuerySet holds model instances"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place_and_advice(encode: Any, value: Any, text: str) -> None:
    with pytest.raises(EncodeError) as caught:
        encode(value)
    assert text in str(caught.value)


@pytest.mark.django_db
def test_a_queryset_of_plain_values_becomes_a_list() -> None:
    made = ContentType.objects.create(app_label="shop", model="order")
    shop = ContentType.objects.filter(app_label="shop")
    ids, pairs, dicts = loads(
        dumps([shop.values_list("pk", flat=True), shop.values_list(), shop.values("model")])[1], "", JSON_ONLY
    )
    assert ids == [made.pk]
    assert pairs == [[made.pk, "shop", "order"]]
    assert dicts == [{"model": "order"}]


def test_markers_are_kombus() -> None:
    assert json.loads(dumps([datetime(2026, 1, 2), date(2026, 1, 2), time(3), Decimal("1.50"), b"a", b"\xff"])[1]) == [
        {"__type__": "datetime", "__value__": "2026-01-02T00:00:00"},
        {"__type__": "date", "__value__": "2026-01-02"},
        {"__type__": "time", "__value__": "03:00:00"},
        {"__type__": "decimal", "__value__": "1.50"},
        {"__type__": "bytes", "__value__": "a"},
        {"__type__": "base64", "__value__": "/w=="},
    ]
    key = uuid.uuid4()
    assert json.loads(dumps(key)[1]) == {"__type__": "uuid", "__value__": {"hex": key.hex}}


def test_kombu_reads_ours_and_we_read_kombus() -> None:
    kombu = pytest.importorskip("kombu.utils.json")
    value = [
        datetime(2026, 1, 2, tzinfo=UTC),
        date(2026, 1, 2),
        time(3),
        Decimal("1.5"),
        uuid.uuid4(),
        b"a",
        b"\xff",
        None,
    ]
    assert kombu.loads(dumps(value)[1]) == value
    assert loads(kombu.dumps(value), "", JSON_ONLY) == value


def test_nothing_is_imported_or_run_because_text_names_it() -> None:
    """S2, S3: in a process of its own, since what is loaded once stays loaded."""
    program = """
import sys
from django.conf import settings
settings.configure()
from django_tasks.serialization import exception_from_data, loads
before = set(sys.modules)
for text in ('{"__type__":"this","__value__":[]}', '{"__type__":"builtins.eval","__value__":"1"}'):
    try:
        loads(text, "", ("json",))
    except Exception as exc:
        assert type(exc).__name__ == "DecodeError", exc
for module, name in [("this", "Zen"), ("antigravity", "x"), ("os", "system"), ("builtins", "eval"), ("builtins", "id")]:
    exc = exception_from_data({"exc_module": module, "exc_type": name, "exc_args": ["exit(3)"], "text": "t"})
    assert type(exc).__mro__[1].__name__ == "UnpickleableExceptionWrapper", exc
assert not set(sys.modules) - before - {"stringprep"}, set(sys.modules) - before
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
