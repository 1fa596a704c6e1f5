"""Values to stored text and back: formats, compressions, and errors as data.

What is stored is told by an *encoding*: ``""`` for plain JSON, else ``"<serializer>"`` or
``"<serializer>+<compression>"``. Text comes back only in a format that the reader accepts, and its size is checked
before it is decoded.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Final

from . import typed_json
from .conf import settings
from .exceptions import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    PayloadTooLarge,
    SerializationError,
    UnpickleableExceptionWrapper,
)
from .formats import (
    Compression,
    check_formats,
    find_compression,
    find_serializer,
    register,
    register_compression,
    unregister,
)

__all__ = [
    "check_formats",
    "dumps",
    "ensure_fits",
    "exception_from_data",
    "exception_to_data",
    "loads",
    "register",
    "register_compression",
    "storable",
    "unregister",
]

#: How many times ``PAYLOAD_LIMIT`` a value may be when it is decompressed; beyond it, it is a bomb.
EXPANSION_LIMIT: Final = 10
#: Characters of an error's text, and of its arguments, that are kept.
ERROR_TEXT_LIMIT: Final = 65_536
#: Causes of an error that are kept.
CAUSES_LIMIT: Final = 10
# Errors travel inside other data, so their arguments may not use up all levels.
_ARG_DEPTH: Final = typed_json.MAX_DEPTH - 8


def dumps(value: Any, serializer: str = "json", compression: str | None = None) -> tuple[str, str]:
    """Return ``(encoding, text)`` for ``value``; the text fits a text column of any database.

    Raises ``EncodeError`` when the value cannot be serialized or the format is not known here, ``ContentDisallowed``
    for pickle when the settings do not allow it, ``PayloadTooLarge`` when a value to be compressed is over ten times
    ``PAYLOAD_LIMIT``. Whether the text may be stored is for :func:`ensure_fits` to say.
    """
    if compression is None and serializer == "json":
        return "", typed_json.encode(value)
    chosen = find_serializer(serializer, EncodeError)
    squeeze = find_compression(compression, EncodeError) if compression is not None else None
    with _translated(f"The {serializer!r} serializer cannot encode the value", EncodeError):
        content = chosen.encode(value)
    if not isinstance(content, bytes if chosen.binary else str):
        kind = "bytes" if chosen.binary else "text"
        raise EncodeError(
            f"The {serializer!r} serializer wrote a {type(content).__name__}; it is registered for {kind}."
        )
    if squeeze is not None:
        raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        _ensure_no_bomb(len(raw))
        with _translated(f"The {compression!r} compression failed", EncodeError):
            return f"{serializer}+{compression}", base64.b64encode(squeeze.compress(raw)).decode()
    if isinstance(content, bytes):
        return serializer, base64.b64encode(content).decode()
    if storable(content) != content:
        raise EncodeError(f"The {serializer!r} serializer wrote NUL bytes or lone surrogates; register it as binary.")
    return serializer, content


def loads(text: str, encoding: str, accept: Collection[str]) -> Any:
    """Return the value of stored ``text``. ``accept`` has the names or content types of the formats that may be read.

    Raises ``ContentDisallowed`` before anything is decoded, ``PayloadTooLarge`` for more than ten times
    ``PAYLOAD_LIMIT``, ``DecodeError`` for everything else; nothing but these three.
    """
    if encoding == "":
        if "json" not in accept and "application/json" not in accept:
            raise _disallowed("json", accept)
        _ensure_no_bomb(len(text))
        return typed_json.decode(text)
    name, _, compression = encoding.partition("+")
    try:
        chosen = find_serializer(name, DecodeError)
    except DecodeError:
        if name not in accept:
            raise _disallowed(name, accept) from None
        raise
    if name not in accept and chosen.content_type not in accept:
        raise _disallowed(name, accept)
    squeeze = find_compression(compression, DecodeError) if compression else None
    _ensure_no_bomb(len(text))
    with _translated(f"Stored value is not what {encoding!r} writes", DecodeError):
        content: str | bytes = text
        if chosen.binary or squeeze is not None:
            content = base64.b64decode(text, validate=True)
            if squeeze is not None:
                content = _expand(squeeze, content)
            if not chosen.binary:
                content = content.decode("utf-8", "surrogatepass")
        return chosen.decode(content)


def _expand(squeeze: Compression, content: bytes) -> bytes:
    limit = settings.PAYLOAD_LIMIT * EXPANSION_LIMIT
    expanded = squeeze.decompress(content, limit)
    _ensure_no_bomb(len(expanded))
    return expanded


def _ensure_no_bomb(size: int) -> None:
    if size > settings.PAYLOAD_LIMIT * EXPANSION_LIMIT:
        raise PayloadTooLarge(
            f"The value has {size} bytes or more, that is over {EXPANSION_LIMIT} times "
            f"PAYLOAD_LIMIT = {settings.PAYLOAD_LIMIT}."
        )


def loads_error(text: str, encoding: str, accept: Collection[str]) -> Any:
    """Return the data of a stored exception, as :func:`loads`; they are JSON, whatever formats values may have."""
    return loads(text, encoding, {*accept, "json"})


def _disallowed(name: str, accept: Collection[str]) -> ContentDisallowed:
    return ContentDisallowed(f"Stored value is in {name[:100]!r}; ACCEPT_CONTENT allows only {', '.join(accept)}.")


@contextmanager
def _translated(what: str, error: type[SerializationError]) -> Iterator[None]:
    """Raise ``error`` in place of whatever a format raises; errors of ours pass."""
    try:
        yield
    except SerializationError:
        raise
    except Exception as exc:
        raise error(f"{what}: {type(exc).__name__}: {exc}") from exc


def ensure_fits(text: str, what: str = "The payload") -> None:
    """Raise ``PayloadTooLarge`` when ``text`` has more bytes than ``PAYLOAD_LIMIT``."""
    limit = settings.PAYLOAD_LIMIT
    if len(text) * 4 <= limit:  # UTF-8 needs no more than four bytes for a character
        return
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > limit:
        raise PayloadTooLarge(
            f"{what} is {size} bytes, more than PAYLOAD_LIMIT = {limit}; store it elsewhere and send its id."
        )


def storable(text: str) -> str:
    r"""Return ``text`` as every database can store it: NUL bytes and lone surrogates become ``\x00``, ``\udc80``."""
    if "\x00" in text:
        text = text.replace("\x00", "\\x00")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "backslashreplace").decode()
    return text


# Errors as data ------------------------------------------------------------------------------------------------------


def exception_to_data(exc: BaseException) -> dict[str, Any]:
    """Return what :func:`exception_from_data` needs, as plain JSON values.

    ``exc_type`` and ``exc_module`` name the class, ``exc_args`` are its arguments (those that cannot be serialized as
    their reprs), ``text`` is what it says and ``causes`` are its causes' texts, nearest first.
    """
    if isinstance(exc, UnpickleableExceptionWrapper):  # an error from elsewhere, passed on
        module, name, text = exc.exc_module, exc.exc_cls_name, exc.text
        args = exc.exc_args
    else:
        module, name, text = type(exc).__module__, type(exc).__qualname__, _say(exc)
        args = exc.args
    return {
        "exc_type": storable(name),
        "exc_module": storable(module),
        "exc_args": _plain_args(args),
        "text": _cut(text),
        "causes": _causes(exc),
    }


def exception_from_data(data: Mapping[str, Any]) -> BaseException:
    """Return the exception that ``data`` tells of.

    It is of its own class if that lives in a module which is loaded already and is a subclass of ``Exception``; nothing
    is imported because data name it. Else it is of a stand-in class of the same name, a subclass of
    :class:`~django_tasks.exceptions.UnpickleableExceptionWrapper`.
    """
    module, name = str(data.get("exc_module", "")), str(data.get("exc_type", "Exception"))
    args: Any = data.get("exc_args")
    with suppress(DecodeError):  # marked or not: both are arguments
        args = typed_json.untag(args)
    args = tuple(args) if isinstance(args, list | tuple) else ()
    text = str(data.get("text", ""))
    cls = _loaded_class(module, name)
    if cls is not None:
        rebuilt = _rebuild(cls, args, text)
        if rebuilt is not None:
            return rebuilt
    return _stand_in(_cut(module, 200), _cut(name, 200))(module, name, args, text)


def _rebuild(cls: type[Exception], args: tuple[Any, ...], text: str) -> Exception | None:
    """Return an exception of ``cls`` that says ``text`` if there is a way, else one that at least has ``args``."""
    made = []
    # A class which changes its arguments on their way to ``args`` must not do so twice: then its __init__ is left out.
    ways: tuple[Callable[[], Exception], ...] = (lambda: cls(*args), lambda: cls.__new__(cls, *args))
    for make in ways:
        try:
            exc = make()
            if type(exc) is not cls:
                continue
            if str(exc) == text and exc.args == args:
                return exc
        except Exception:  # noqa: S112 - a constructor of any kind; the next way may do
            continue
        made.append(exc)
    return made[0] if made else None


def _loaded_class(module: str, qualified_name: str) -> type[Exception] | None:
    # Plain look-ups in namespaces: ``getattr`` could run a module's ``__getattr__``, or load a lazy module.
    try:
        namespace: Any = object.__getattribute__(sys.modules[module], "__dict__")
    except (KeyError, AttributeError):
        return None
    found: Any = None
    for part in qualified_name.split("."):
        found = namespace.get(part)
        if not issubclass(type(found), type):
            return None
        namespace = vars(found)
    return found if issubclass(found, Exception) else None


@lru_cache(maxsize=256)
def _stand_in(module: str, name: str) -> type[UnpickleableExceptionWrapper]:
    def __reduce__(self: UnpickleableExceptionWrapper) -> tuple[Any, ...]:
        return exception_from_data, (exception_to_data(self),)

    namespace = {"__module__": module, "__qualname__": name, "__reduce__": __reduce__}
    return type(name.rpartition(".")[2], (UnpickleableExceptionWrapper,), namespace)


def _plain_args(args: tuple[Any, ...]) -> list[Any]:
    plain = [_plain_arg(arg) for arg in args]
    with suppress(EncodeError):
        if len(typed_json.encode(plain)) <= ERROR_TEXT_LIMIT:
            return plain
    return [_cut(_repr(arg), ERROR_TEXT_LIMIT // len(plain)) for arg in args]


def _plain_arg(arg: Any) -> Any:
    try:
        return typed_json.tag(arg, _ARG_DEPTH)
    except Exception:  # whatever its own methods raise
        return _cut(_repr(arg))


def _causes(exc: BaseException) -> list[str]:
    causes: list[str] = []
    seen = {id(exc)}
    while len(causes) < CAUSES_LIMIT:
        cause = exc.__cause__
        if cause is None and not exc.__suppress_context__:
            cause = exc.__context__
        if cause is None or id(cause) in seen:
            break
        seen.add(id(cause))
        causes.append(_cut(f"{type(cause).__qualname__}: {_say(cause)}", 1000))
        exc = cause
    return causes


def _say(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:
        return f"<{type(exc).__qualname__} that cannot say what it is>"


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__qualname__} that cannot say what it is>"


def _cut(text: str, limit: int = ERROR_TEXT_LIMIT) -> str:
    text = storable(text)
    return text if len(text) <= limit else f"{text[: max(limit - 1, 0)]}…"
