"""What people are not to read of a call: the arguments that its task declares as ``sensitive``, and what a name says is
secret (``SENSITIVE_NAMES``).

The message itself has to hold them, or no worker could run it; see docs/how-to/secrets.md for what lies where.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import date, time
from functools import lru_cache
from typing import Any, Final

from .conf import settings
from .exceptions import SerializationError
from .registry import tasks
from .serialization import dumps

#: Shown, and kept, in place of a value.
HIDDEN: Final = "********"
#: The encoding of arguments of which the sensitive ones are kept no more: plain JSON, which no worker accepts.
REDACTED: Final = "redacted"
#: A value with fewer characters is looked for in texts as a word of its own, or half of the text would be hidden.
SHORT: Final = 4
#: Values that are looked for; where a call has more, texts are hidden whole.
MOST: Final = 1_000


def is_secret(name: str) -> bool:
    """Does this name say that what it stands for is nobody's business?"""
    words = settings.SENSITIVE_NAMES
    return bool(words) and _pattern(words).search(name) is not None


def secret_names() -> str:
    """Return a regular expression for such names, as every database knows it, to be used without regard to case;
    ``""`` if there are none."""
    return "|".join("[_-]?".join(map(re.escape, re.split("[_-]", word))) for word in settings.SENSITIVE_NAMES)


@lru_cache(maxsize=8)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(secret_names(), re.IGNORECASE)


def hide(value: Any) -> Any:
    """Return a tree of dicts, lists and tuples as it is, but with everything hidden whose key names a secret."""
    if type(value) is dict:
        return {key: HIDDEN if isinstance(key, str) and is_secret(key) else hide(each) for key, each in value.items()}
    if type(value) is list:
        return [hide(each) for each in value]
    return tuple(hide(each) for each in value) if type(value) is tuple else value


def revealed(value: Any, stored: Any) -> Any:
    """Return an edited tree with the stored values in place of those that :func:`hide` has hidden, and were left so."""
    if isinstance(value, dict) and isinstance(stored, dict):
        return {
            key: stored[key] if each == HIDDEN and key in stored and is_secret(key) else revealed(each, stored.get(key))
            for key, each in value.items()
        }
    if isinstance(value, list) and isinstance(stored, list):
        return [revealed(each, stored[at] if at < len(stored) else None) for at, each in enumerate(value)]
    return value


def sensitive_names(name: str, options: Mapping[str, Any] | None = None) -> frozenset[str]:
    """Return which arguments of a task are declared as sensitive: here, or where the call was sent."""
    declared = getattr(tasks.get(name), "sensitive", ())
    told = (options or {}).get("sensitive")
    return frozenset(declared).union(told if isinstance(told, list) else ())


def signature_of(name: str) -> inspect.Signature | None:
    """Return what a task takes, ``None`` if this process does not know it."""
    return getattr(getattr(tasks.get(name), "_arguments", None), "signature", None)


def hidden_call(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
    *,
    taken: int | None = 0,
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return the arguments of a call as people may see them, in a tuple if they came in one, else in a list.

    ``options`` are those that are stored with a call, and tell what else is sensitive. ``taken`` is how many positional
    arguments come before these, ``None`` if that is not known (:func:`taken_in`).
    """
    sensitive = sensitive_names(name, options)

    def is_hidden(argument: str) -> bool:
        return argument in sensitive or is_secret(argument)

    places = hidden_places(name, len(args), options, taken=taken)
    shown = [HIDDEN if at in places else hide(value) for at, value in enumerate(args)]
    names = _named_apart(signature_of(name))
    named = {key: HIDDEN if is_hidden(names(key)) or is_hidden(key) else hide(kwargs[key]) for key in kwargs}
    return tuple(shown) if isinstance(args, tuple) else shown, named


def hidden_places(
    name: str, count: int, options: Mapping[str, Any] | None = None, *, taken: int | None = 0
) -> set[int]:
    """Return which of so many positional arguments are hidden: those whose parameter is sensitive or named as a secret;
    all of a task with sensitive ones, if it cannot be told which parameters they are for."""
    sensitive, signature = sensitive_names(name, options), signature_of(name)
    if signature is None or taken is None:
        return set(range(count)) if sensitive else set()
    names = _positional(signature, taken + count)[taken:]
    return {at for at, one in enumerate(names) if one in sensitive or is_secret(one)}


def hides_some(name: str) -> bool:
    """Is an argument that a registered task takes hidden, whatever its value?"""
    signature = signature_of(name)
    return bool(sensitive_names(name)) or any(map(is_secret, signature.parameters if signature is not None else ()))


def taken_in(options: Mapping[str, Any] | None) -> int | None:
    """Return how many positional arguments a call is given before its own, by its place in a workflow; ``None``: that
    is known only once it runs."""
    node = (options or {}).get("node")
    if not isinstance(node, Mapping):
        return 0
    if "failed" in node:
        return 0 if node.get("immutable") else None
    return 1 if node.get("takes") else 0


def redacted(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], *, taken: int) -> str | None:
    """Return the stored arguments of a call of ``task`` without the sensitive ones, as JSON; ``None`` if it has none.

    ``taken`` is how many it took in before its own positional ones.
    """
    signature: inspect.Signature = task._arguments.signature
    names = _positional(signature, taken + len(args))[taken:]
    apart = _named_apart(signature)
    kept = [HIDDEN if name in task.sensitive else value for name, value in zip(names, args, strict=False)]
    kept += [HIDDEN] * (len(args) - len(kept))  # no parameter is there for them
    named = {key: HIDDEN if {key, apart(key)} & set(task.sensitive) else value for key, value in kwargs.items()}
    if HIDDEN not in kept and HIDDEN not in named.values():
        return None
    try:
        return dumps([kept, named])[1]
    except SerializationError:  # of another format than JSON
        return json.dumps([[HIDDEN] * len(args), dict.fromkeys(kwargs, HIDDEN)])


def _positional(signature: inspect.Signature, count: int) -> list[str]:
    """Return the names of the parameters that take so many positional arguments."""
    names: list[str] = []
    for one in signature.parameters.values():
        if one.kind is inspect.Parameter.VAR_POSITIONAL:
            return (names + [one.name] * count)[:count]
        if one.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
            names.append(one.name)
    return names[:count]


def _named_apart(signature: inspect.Signature | None) -> Callable[[str], str]:
    """Return what gives the name of the parameter that takes an argument of some name: ``**kwargs`` takes the rest."""
    parameters = signature.parameters if signature is not None else {}
    rest = next((one.name for one in parameters.values() if one.kind is inspect.Parameter.VAR_KEYWORD), "")
    return lambda key: key if key in parameters else rest


# Texts that may quote them -------------------------------------------------------------------------------------------


class Secrets:
    """The values of sensitive arguments, to be hidden in what a task says: errors, tracebacks, log lines."""

    def __init__(self, values: Sequence[Any]) -> None:
        leaves = {leaf for value in values for leaf in _leaves(value)}
        self._hides_all = len(leaves) > MOST
        texts = {each for leaf in leaves for each in _spellings(leaf)} if not self._hides_all else set()
        ordered = sorted(texts, key=len, reverse=True)  # one may hold another
        parts = [re.escape(one) if len(one) >= SHORT else rf"(?<!\w){re.escape(one)}(?!\w)" for one in ordered]
        self._found = re.compile("|".join(parts)) if parts else None

    def scrub(self, text: str) -> str:
        """Return a text without them."""
        if self._hides_all:
            return HIDDEN
        return text if self._found is None else self._found.sub(HIDDEN, text)

    def scrub_all(self, value: Any) -> Any:
        """Return plain data without them in any of its texts and numbers."""
        if isinstance(value, str):
            return self.scrub(value)
        if isinstance(value, dict):
            return {key: self.scrub_all(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.scrub_all(each) for each in value]
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        return value if self.scrub(str(value)) == str(value) else HIDDEN


def secrets_of(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Secrets | None:
    """Return the values that a call of ``task`` has for its sensitive arguments; ``None`` if it declares none."""
    if not task.sensitive:
        return None
    signature: inspect.Signature = task._arguments.signature
    apart = _named_apart(signature)
    names = _positional(signature, len(args))
    values = [value for name, value in zip(names, args, strict=False) if name in task.sensitive]
    values += [value for key, value in kwargs.items() if {key, apart(key)} & set(task.sensitive)]
    return Secrets(values)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "backslashreplace")
    elif value is not None and not isinstance(value, bool):
        yield value.isoformat() if isinstance(value, date | time) else str(value)


def _spellings(text: str) -> Collection[str]:
    """Return how a text may be quoted: as it is, in Python's and in JSON's way, and in one line."""
    if not text.strip():
        return ()
    found = {text}
    for _ in range(2):  # a text may be quoted by one that is quoted itself
        found |= {quoted for each in found for quoted in _quoted(each)}
    return {*found, *(" ".join(each.split()) for each in found)}


def _quoted(text: str) -> Iterator[str]:
    yield repr(text)[1:-1]
    yield repr(f"{text}'\"")[1:-4]  # which quotes Python takes depends on what else is quoted
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
