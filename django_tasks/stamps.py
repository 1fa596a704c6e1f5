"""Which calls carry a stamp: a header that a canvas puts on all its tasks.

Celery compares the values themselves. Here they are compared as text, so that what is typed in a shell, or travelled as
JSON, means the same as the number or the UUID that was stamped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import typed_json

#: For each stamp the texts of the values that are looked for.
Wanted = Mapping[str, list[str]]


def wanted(headers: Any) -> dict[str, list[str]]:
    """Read what to look for: ``{name: value or values}``, or a list of ``"name=value"``.

    Raises ``ValueError`` for anything else, and when nothing is named.
    """
    found: dict[str, list[str]] = {}
    if isinstance(headers, Mapping):
        for name, values in headers.items():
            found[str(name)] = _texts(values)
    elif isinstance(headers, list | tuple):
        for word in headers:
            name, separator, value = word.partition("=") if isinstance(word, str) else ("", "", "")
            if not name or not separator:
                raise ValueError(f"A stamp is given as NAME=VALUE, not {word!r}")
            found.setdefault(name, []).append(value)
    if not any(found.values()):
        raise ValueError(f"headers must be {{name of a stamp: value or values}} or ['name=value'], not {headers!r}")
    return found


def matching(options: str | None, stamps: Wanted) -> dict[str, list[str]]:
    """Return which of these stamps a call carries, by its options as they are stored; one is enough for a match."""
    if not options or '"stamps"' not in options:
        return {}
    try:
        carried = typed_json.decode(options).get("stamps")
    except (ValueError, TypeError, AttributeError):
        return {}
    if not isinstance(carried, Mapping):
        return {}
    both = {name: [each for each in _texts(carried.get(name)) if each in values] for name, values in stamps.items()}
    return {name: values for name, values in both.items() if values}


def _texts(values: Any) -> list[str]:
    """Return a value, or each of many, as text; nothing for ``None``."""
    if values is None:
        return []
    many: Iterable[Any] = values if isinstance(values, list | tuple | set | frozenset) else [values]
    return [str(value) for value in many]
