"""Stamps are compared as text, and one of them is enough."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks import stamps, typed_json

#: What a text column holds.
TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
A_UUID = UUID("6f1c2a0e-7f5b-4a55-9d3c-5b1d8a1f0c11")


def stored(**carried: Any) -> str:
    """Return the options of a call with these stamps, as they stand in its row."""
    return typed_json.encode({"headers": {"a": "stamps"}, "stamps": carried})


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"customer": "7"}, {"customer": ["7"]}),
        ({"customer": 7, "run": [A_UUID, "x"]}, {"customer": ["7"], "run": [str(A_UUID), "x"]}),
        (["customer=7", "customer=8", "note=a=b"], {"customer": ["7", "8"], "note": ["a=b"]}),
    ],
)
def test_headers_are_a_dict_or_words(headers: Any, expected: dict[str, list[str]]) -> None:
    assert stamps.wanted(headers) == expected


@pytest.mark.parametrize("headers", [{}, [], {"customer": None}, {"customer": []}, "customer=7", None, 7])
def test_headers_that_name_nothing_are_refused(headers: Any) -> None:
    with pytest.raises(ValueError, match=r"headers must be \{name of a stamp: value or values\}"):
        stamps.wanted(headers)


@pytest.mark.parametrize("word", ["customer", "=7", 7])
def test_a_word_without_a_name_or_a_value_is_refused(word: Any) -> None:
    with pytest.raises(ValueError, match="A stamp is given as NAME=VALUE, not"):
        stamps.wanted([word])


@pytest.mark.parametrize(
    ("carried", "wanted", "expected"),
    [
        ({"customer": 7}, {"customer": ["7"]}, {"customer": ["7"]}),
        ({"customer": A_UUID}, {"customer": [str(A_UUID)]}, {"customer": [str(A_UUID)]}),
        ({"customer": [7, 8]}, {"customer": ["8", "9"]}, {"customer": ["8"]}),
        ({"customer": 7, "run": "x"}, {"customer": ["6"], "run": ["x"]}, {"run": ["x"]}),
        ({"customer": 7}, {"customer": ["70"]}, {}),
        ({"customer": None}, {"customer": ["None"]}, {}),
        ({"7": "customer"}, {"customer": ["7"]}, {}),
    ],
)
def test_one_common_value_is_a_match(carried: Any, wanted: Any, expected: Any) -> None:
    assert stamps.matching(stored(**carried), wanted) == expected


@pytest.mark.parametrize(
    "options", [None, "", "{}", '"stamps"', '["stamps"]', '{"stamps":1}', '{"stamps"', '{"a":"stamps"}']
)
def test_a_call_without_stamps_matches_nothing(options: str | None) -> None:
    assert stamps.matching(options, {"customer": ["7"]}) == {}


@given(st.dictionaries(st.text(TEXT, min_size=1), st.integers(-(2**60), 2**60) | st.text(TEXT) | st.booleans()))
def test_whatever_was_stamped_is_found_by_the_same_value(carried: dict[str, Any]) -> None:
    for name, value in carried.items():
        assert stamps.matching(stored(**carried), stamps.wanted({name: value})) == {name: [str(value)]}
