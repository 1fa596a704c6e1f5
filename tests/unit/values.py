"""Values for the tests of serialization, and how to compare them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

#: What most readers accept.
JSON_ONLY = ("json",)


def joined(text: str) -> str:
    """Return ``text`` with each pair of surrogates made the character that they stand for, as JSON's readers do."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


#: Any text, those with NUL bytes and lone surrogates included.
texts = st.text(st.characters(exclude_categories=())).map(joined)
zones = st.none() | st.timezones() | st.just(UTC) | st.just(timezone(timedelta(hours=-3, minutes=-30)))
tagged = (
    st.datetimes(timezones=zones)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.binary(max_size=50)
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
keys = texts | st.sampled_from(["__type__", "__value__"])


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5), max_leaves=20
    )


def same(one: Any, other: Any) -> bool:
    """Compare, telling 1 from True and 1.0, and 0.0 from -0.0; of an aware datetime the offset counts, not the zone."""
    if isinstance(one, datetime) and isinstance(other, datetime):
        return one.isoformat() == other.isoformat()
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)
