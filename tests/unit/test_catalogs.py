"""The catalogs of words in other languages: whole, compiled, and fit for what they stand for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from django.utils.translation.template import templatize

import django_tasks

PACKAGE = Path(django_tasks.__file__).parent
CATALOGS = sorted(PACKAGE.glob("locale/*/LC_MESSAGES/django.po"))
#: Where functions that translate take their texts from.
KEYWORDS: Any = {
    **dict.fromkeys(["_", "gettext", "gettext_lazy", "gettext_noop"]),
    **dict.fromkeys(["ngettext", "ngettext_lazy"], (1, 2)),
    **dict.fromkeys(["pgettext", "pgettext_lazy"], ((1, "c"), 2)),
    **dict.fromkeys(["npgettext", "npgettext_lazy"], ((1, "c"), 2, 3)),
}


def said() -> Iterator[tuple[Any, str]]:
    """Find each text of the package that is to be translated, with its context."""
    for path in PACKAGE.rglob("*.py"):
        yield from found("python", path.read_text())
    for path in PACKAGE.rglob("*.html"):
        yield from found("javascript", templatize(path.read_text(), origin=str(path)))


def found(language: str, source: str) -> Iterator[tuple[Any, str]]:
    for _line, text, _comments, context in extract(language, io.BytesIO(source.encode()), KEYWORDS):
        if text:
            yield text, context or ""


def told(catalog: Catalog) -> dict[tuple[Any, str], tuple[str, ...]]:
    """Return the texts of a catalog, each by what it stands for and its context."""
    texts: dict[tuple[Any, str], tuple[str, ...]] = {}
    for each in catalog:
        if each.id:
            source = each.id if isinstance(each.id, str) else tuple(each.id)
            context: Any = each.context or ""  # of a compiled one Babel tells bytes
            strings = (each.string,) if isinstance(each.string, str) else tuple(each.string or ())
            texts[source, context if isinstance(context, str) else context.decode()] = strings
    return texts


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.parent.parent.name)
def test_a_catalog_has_each_text_and_is_compiled(path: Path) -> None:
    """To bring it up to date: see "Texts in other languages" in CONTRIBUTING.md."""
    written = read_po(io.BytesIO(path.read_bytes()))
    texts = told(written)
    assert set(said()) - texts.keys() == set(), "not there"
    assert texts.keys() - set(said()) == set(), "said nowhere any more"
    assert all(strings and all(strings) for strings in texts.values()), "not all is translated"
    assert not [each.id for each in written if each.fuzzy]
    assert not [each.id for each in written if list(each.check(written))], "what is put in differs"
    assert told(read_mo(io.BytesIO(path.with_suffix(".mo").read_bytes()))) == texts, "not compiled"


def test_texts_are_found() -> None:
    texts = set(said())
    assert ("Workers", "") in texts or ("workers", "") in texts
    assert len(texts) > 600
