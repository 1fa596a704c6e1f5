"""Charts as text: well-formed, within their frame, and safe whatever they are made of."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from django.test import override_settings
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from django_tasks.cockpit import charts, words
from django_tasks.cockpit.charts import HEIGHT, WIDTH, Line

VALUES = st.lists(st.none() | st.floats(0, 1e12), min_size=1, max_size=60)
SVG = "{http://www.w3.org/2000/svg}"


def tree_of(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))  # noqa: S314


def draw(kind: str, values: list[float | None], name: str = "done") -> charts.Chart:
    maker = charts.bars if kind == "bars" else charts.curves
    labels = [f"12:{place:02}" for place in range(len(values))]
    return maker("Title", labels, [Line(name, "ok", values)], form=words.amount, description="said", ident="i")


@given(values=VALUES, kind=st.sampled_from(["bars", "curves"]))
def test_everything_is_drawn_within_the_frame(values: list[float | None], kind: str) -> None:
    tree = tree_of(draw(kind, values).svg)
    for rect in tree.iter(f"{SVG}rect"):
        x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert width > 0
        assert height >= 0
        assert x + width <= WIDTH + 0.05
        assert y + height <= HEIGHT + 0.05
    for path in tree.iter(f"{SVG}path"):
        for number in re.findall(r"-?\d+\.\d+", path.attrib["d"]):
            assert 0 <= float(number) <= WIDTH


@given(text=st.text(min_size=1, max_size=30))
def test_names_are_text_and_nothing_else(text: str) -> None:
    hostile = f"{text}<script>\"'&</title>"
    tree = tree_of(
        charts.bars(hostile, [hostile], [Line(hostile, "ok", [1.0])], form=str, description=hostile, ident="i")
        .svg.replace("\x00", "")
        .translate(dict.fromkeys(range(32)))
        .translate({0xFFFE: None, 0xFFFF: None, **dict.fromkeys(range(0xD800, 0xE000))})
    )
    assert not list(tree.iter(f"{SVG}script"))
    assert {element.tag.removeprefix(SVG) for element in tree.iter()} <= {
        "svg", "title", "desc", "g", "rect", "path", "text",
    }  # fmt: skip


@override_settings(USE_THOUSAND_SEPARATOR=True)
def test_no_locale_breaks_a_coordinate() -> None:
    plain = draw("bars", [1234.5, 99999.0])
    with translation.override("de"):
        german = draw("bars", [1234.5, 99999.0])
    numbers = re.compile(r'(?:x|y|width|height|d)="([^"]+)"')
    assert numbers.findall(plain.svg) == numbers.findall(german.svg)
    assert "100.000" in german.svg
    assert "100,000" in plain.svg


def test_a_chart_tells_what_it_shows_and_has_a_table() -> None:
    chart = draw("curves", [1.0, None, 3.0])
    tree = tree_of(chart.svg)
    assert tree.attrib["role"] == "img"
    assert tree.attrib["aria-labelledby"].split() == [tree[0].attrib["id"], tree[1].attrib["id"]]
    assert (tree[0].text, tree[1].text) == ("Title", "said")
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', chart.rows)
    assert rows == [("12:02", "3"), ("12:01", ""), ("12:00", "1")]


def test_nothing_to_draw_is_said() -> None:
    assert ">nothing</text>" in draw("bars", [0.0, None]).svg
    assert ">nothing</text>" not in draw("bars", [0.0, 1.0]).svg
    assert charts.spark([None, None], "none") == ""


def test_no_chart_has_a_style_or_a_script_of_its_own() -> None:
    for kind in ("bars", "curves"):
        svg = draw(kind, [1.0, 2.0]).svg + charts.spark([1.0], "t")
        assert "style" not in svg
        assert "script" not in svg
        assert " on" not in svg


def test_times_are_written_in_the_unit_that_suits_them() -> None:
    told = {0: "0 s", 0.0004: "0.4 ms", 0.25: "250 ms", 2.14: "2.1 s", 64: "64 s", 840: "14 min", 3900: "1 h 5 min"}
    assert {seconds: words.duration(seconds) for seconds in told} == told
    assert words.duration(None) == "–"
    assert words.duration(3 * 86_400) == "3 days"
    assert (words.count(10_001), words.count(10_000), words.amount(2.5), words.part(0.018)) == (
        "10,000+", "10,000", "2.5", "1.8 %",
    )  # fmt: skip
