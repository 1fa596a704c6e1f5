"""Sentences that commands and logs say in English, and pages in the reader's language."""

from __future__ import annotations

from typing import Any, Self

from django.utils.translation import gettext


class Sentence(str):
    """A sentence in English that can be told in another language, too.

    It is made of a text in ``gettext_noop()`` and of what is put in there, by name.
    """

    __slots__ = ("_facts", "_text")

    _text: str
    _facts: dict[str, Any]

    def __new__(cls, text: str, **facts: Any) -> Self:
        made = super().__new__(cls, text % facts)
        made._text, made._facts = text, facts
        return made

    def translated(self) -> str:
        """Return it in the active language."""
        return gettext(self._text) % self._facts


def told(text: str) -> str:
    """Return a text in the active language if it is a :class:`Sentence`, else as it is."""
    return text.translated() if isinstance(text, Sentence) else str(text)
