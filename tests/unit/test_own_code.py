"""Where in the project's own code an error came up, as it is found, stored and read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from django_tasks import error_reports, own_code
from django_tasks.own_code import HEAD, Place
from django_tasks.redaction import Secrets
from django_tasks.serialization import exception_from_data, loads

HERE = "tests/unit/test_own_code.py"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let code be imported from the root, whatever other tests have added."""
    others = [folder for folder in sys.path if not Path(folder).is_relative_to(ROOT / "tests")]
    monkeypatch.setattr(sys, "path", [str(ROOT), *others])
    own_code._shown.cache_clear()
    yield
    own_code._shown.cache_clear()


@dataclass
class Attempt:
    id: str = "1"
    attempt: int = 1


def raised() -> Exception:
    """Return an error that came up in a library which this function called."""
    try:
        json.loads("{")
    except ValueError as error:
        return error
    raise AssertionError


def test_the_place_is_the_last_line_of_the_project() -> None:
    error = raised()
    place = Place.of(error)
    assert place is not None
    assert (place.file, place.function) == (HERE, "raised")
    assert 'json.loads("{")' in Path(__file__).read_text().splitlines()[place.line - 1]
    assert str(place) == f"{HERE}:{place.line} in raised"
    assert place.name == f"{HERE} in raised"


def test_what_was_never_raised_is_from_where_its_cause_is() -> None:
    limit = TimeoutError("took too long")
    assert Place.of(limit) is None
    limit.__cause__ = raised()
    place = Place.of(limit)
    assert place is not None
    assert place.function == "raised"


def test_our_own_code_is_not_the_project() -> None:
    with pytest.raises(Exception, match="not JSON") as caught:
        loads("{", "", ("json",))
    place = Place.of(caught.value)
    assert place is not None
    assert place.file == HERE


def test_it_stands_in_front_of_what_is_stored_of_an_error() -> None:
    error = raised()
    for hidden in (None, Secrets([HERE])):
        told = error_reports.failure(Attempt(), error, hidden=hidden).result or ""
        assert Place.read(told[:HEAD]) == Place.of(error)
        assert told.startswith(own_code.beginning(f"{HERE} in raised"))
        assert not told.startswith(own_code.beginning(f"{HERE} in raise"))
        assert type(exception_from_data(json.loads(told))) is type(error)
    told = error_reports.failure(Attempt(), ValueError("never raised")).result or ""
    assert Place.read(told[:HEAD]) is None
    assert not told.startswith(own_code.beginning(""))


def test_the_longest_and_oddest_place_can_be_read() -> None:
    code = compile("def f():\n    raise ValueError\nf()", f'/srv/{"ä" * 300}/"odd\\\n.py', "exec")
    code = code.replace(co_consts=(code.co_consts[0].replace(co_name="漢" * 300), *code.co_consts[1:]))
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - it says nothing
        exec(code, {})  # noqa: S102 - a file of this name need not be there
    place = Place.of(caught.value)
    assert place is not None
    assert place.file.endswith("ää/_odd__.py")
    told = error_reports.failure(Attempt(), caught.value).result or ""
    assert Place.read(told[:HEAD]) == place
    assert told.startswith(own_code.beginning(place.name))


@pytest.mark.parametrize(
    "head", [None, "", "{}", '{"frame":', '{"frame":["a","b"', '{"frame":["a",1,2]}', '{"frame":[]}']
)
def test_other_data_tell_no_place(head: str | None) -> None:
    assert Place.read(head) is None
