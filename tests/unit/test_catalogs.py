"""The catalogs of words in other languages: whole, compiled, and fit for what they stand for."""

from __future__ import annotations

import ast
import io
import re
from collections import Counter
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


# What the doctor says -------------------------------------------------------------------------------------------------

#: What may stand in a sentence and is called so in every language.
VERBATIM = re.compile(
    r"manage\.py (?:tasks )?\w+|(?<!\w)--?[a-zA-Z]\w*|\b[A-Z][A-Z_]{3,}\b|\['\w+'\]|\{'.*'.*\}|\"[\w ]+\"|%\(\w+\)s"
    r"|\brunbeat\b|\bmaxmemory(?:-policy noeviction)?\b|\btimedatectl set-ntp true\b"
)
#: Two words beside each other.
PROSE = re.compile(r"[A-Za-z]{2,}[,;:.]? [a-z]{2,}")
#: Cures that are a command and nothing else, and what a database is asked.
COMMANDS = {"manage.py runworker", "manage.py runworker -Q ", "manage.py migrate django_tasks", "PRAGMA journal_mode"}
#: Functions that take a text which is to be translated.
TRANSLATING = {*KEYWORDS}


def problem_makers() -> list[Path]:
    """Return the modules in which the doctor's problems are made, those of system checks and of servers among them."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        if calls & {"Problem", "Unfit", "checks.Error", "checks.Warning"}:
            found.append(path)
    # Of two distributions in one place is told before there are any translations.
    return [path for path in found if path.name != "clash.py"]


def untranslated(tree: ast.AST) -> Iterator[str]:
    """Find what reads like a sentence and is not given to a function that translates."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if isinstance(node, ast.Call) and ast.unparse(node.func) in TRANSLATING:
            assert all(isinstance(text, ast.Constant) for text in node.args[:1]), ast.unparse(node)
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and PROSE.search(node.value):
            yield node.value
        yield from untranslated(node)


@pytest.mark.parametrize("path", problem_makers(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_whatever_the_doctor_says_is_to_be_translated(path: Path) -> None:
    assert set(untranslated(ast.parse(path.read_text()))) <= COMMANDS


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.parent.parent.name)
def test_the_sentences_of_the_doctor_name_commands_and_settings_as_they_are(path: Path) -> None:
    sentences = {text for maker in problem_makers() for text in found("python", maker.read_text())}
    assert len(sentences) > 60
    texts = told(read_po(io.BytesIO(path.read_bytes())))
    for source, context in sentences:
        for number, translated in enumerate(texts[source, context]):
            english = source if isinstance(source, str) else source[min(number, 1)]
            assert translated
            assert translated != english
            assert Counter(VERBATIM.findall(translated)) == Counter(VERBATIM.findall(english)), translated


def test_a_sentence_that_nobody_translates_is_found() -> None:
    def of(source: str) -> list[str]:
        return list(untranslated(ast.parse(source)))

    assert of('"""Say it."""\nProblem("a", "error", "Nothing works.", cure)') == ["Nothing works."]
    assert of('text = f"Queue {name} has tasks" + ngettext("a task", "some tasks", 2)') == [" has tasks"]
    assert of('Problem(_("Nothing works."), "manage.py runworker: not so")') == ["manage.py runworker: not so"]
