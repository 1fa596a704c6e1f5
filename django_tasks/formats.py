"""The formats and compressions there are, by name: the built-in ones, and those which a project registers.

Names are kombu's (https://docs.celeryq.dev/projects/kombu/en/stable/userguide/serialization.html). What needs another
package imports it at first use.
"""

from __future__ import annotations

import difflib
import gzip
import pickle
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from . import typed_json
from .conf import settings
from .exceptions import ContentDisallowed, SerializationError

__all__ = [
    "Compression",
    "Serializer",
    "check_formats",
    "find_compression",
    "find_serializer",
    "register",
    "register_compression",
    "unregister",
]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
_BUILT_IN: Final = frozenset({"json", "msgpack", "pickle", "yaml", "gzip", "zlib", "zstd"})


@dataclass(frozen=True, slots=True)
class Serializer:
    """A format: how a value becomes text or bytes, and back. Either function may raise anything."""

    name: str
    encode: Callable[[Any], str | bytes]
    decode: Callable[[Any], Any]
    content_type: str
    #: ``encode`` gives bytes and ``decode`` takes them; they are stored as base64.
    binary: bool


@dataclass(frozen=True, slots=True)
class Compression:
    """A compression. Either function may raise anything."""

    name: str
    compress: Callable[[bytes], bytes]
    #: Gets the most bytes it need give, too; one byte more tells that there are more.
    decompress: Callable[[bytes, int], bytes]


_serializers: dict[str, Serializer] = {}
_compressions: dict[str, Compression] = {}


def register(
    name: str,
    encoder: Callable[[Any], str | bytes],
    decoder: Callable[[Any], Any],
    content_type: str,
    content_encoding: str = "utf-8",
) -> None:
    """Make a format known as ``name``, for ``serializer=`` and ``ACCEPT_CONTENT``.

    ``content_encoding`` is ``"utf-8"`` when ``encoder`` gives text, ``"binary"`` when it gives bytes. Registering a
    name again replaces it. Do it in ``AppConfig.ready()``, so that web processes and workers know it.

    Raises ``ValueError`` for a malformed or built-in name, or another encoding.
    """
    _check_name(name, "serializer")
    if content_encoding not in ("utf-8", "binary"):
        raise ValueError(f"content_encoding is {content_encoding!r}; allowed: 'utf-8' (text) or 'binary' (bytes)")
    _check_callable(name, encoder, decoder)
    _serializers[name] = Serializer(name, encoder, decoder, content_type, content_encoding == "binary")


def unregister(name: str) -> None:
    """Forget the format that a project registered as ``name``.

    Raises ``ValueError`` for a built-in name, ``LookupError`` for one that is not registered.
    """
    _check_name(name, "serializer")
    if name not in _serializers:
        raise LookupError(f"No serializer {name!r} is registered")
    del _serializers[name]


def register_compression(name: str, compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes]) -> None:
    """Make a compression known as ``name``, for ``compression=``.

    What ``decompress`` gives is measured only after it was made, so the built-in ones are the safer choice.

    Raises ``ValueError`` for a malformed or built-in name.
    """
    _check_name(name, "compression")
    _check_callable(name, compress, decompress)
    _compressions[name] = Compression(name, compress, lambda content, limit: decompress(content))


def _check_name(name: object, what: str) -> None:
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ValueError(f"The {what} name is {name!r}; allowed: 1 to 32 of the characters a-z 0-9 _ . -")
    if name in _BUILT_IN:
        raise ValueError(f"The {what} {name!r} is built in and cannot be replaced or removed")


def _check_callable(name: str, *functions: object) -> None:
    for function in functions:
        if not callable(function):
            raise TypeError(f"{name!r} is given {function!r} where a function is needed")


def find_serializer(name: str, error: type[SerializationError]) -> Serializer:
    """Return the format registered as ``name``; raise ``error`` when there is none."""
    return _serializers.get(name) or _missing(name, _serializers, error, "serializer")


def find_compression(name: str, error: type[SerializationError]) -> Compression:
    """Return the compression registered as ``name``; raise ``error`` when there is none."""
    return _compressions.get(name) or _missing(name, _compressions, error, "compression")


def _missing(name: object, known: Mapping[str, Any], error: type[SerializationError], what: str) -> Any:
    close = difflib.get_close_matches(str(name)[:100], known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Registered: {', '.join(sorted(known))}."
    raise error(f"No {what} {str(name)[:100]!r} is registered here. {hint}")


def check_formats() -> list[str]:
    """Return what is wrong with the settings about formats, one sentence or two each; ``[]`` when all is well."""
    problems = []
    for setting in ("TASK_SERIALIZER", "RESULT_SERIALIZER"):
        name = getattr(settings, setting)
        try:
            serializer = find_serializer(name, SerializationError)
            serializer.encode([])
        except (SerializationError, ImportError) as exc:
            problems.append(f"DJANGO_TASKS[{setting!r}] is {name!r}: {exc}")
            continue
        if not {name, serializer.content_type} & set(settings.ACCEPT_CONTENT):
            problems.append(
                f"DJANGO_TASKS[{setting!r}] is {name!r}, which DJANGO_TASKS['ACCEPT_CONTENT'] does not accept: "
                f"it is {settings.ACCEPT_CONTENT!r}."
            )
    for setting in ("TASK_COMPRESSION", "RESULT_COMPRESSION"):
        name = getattr(settings, setting)
        try:
            if name is not None:
                find_compression(name, SerializationError).compress(b"")
        except (SerializationError, ImportError) as exc:
            problems.append(f"DJANGO_TASKS[{setting!r}] is {name!r}: {exc}")
    contents = {serializer.content_type for serializer in _serializers.values()}
    for name in settings.ACCEPT_CONTENT:
        if name not in _serializers and name not in contents:
            problems.append(f"DJANGO_TASKS['ACCEPT_CONTENT'] has {name!r}, which is no registered serializer.")
    if not settings.ALLOW_UNSAFE_PICKLE and {"pickle", _PICKLE} & set(settings.ACCEPT_CONTENT):
        problems.append("DJANGO_TASKS['ACCEPT_CONTENT'] has pickle, but ALLOW_UNSAFE_PICKLE is False.")
    return problems


def _needed(module: str, package: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as exc:
        raise ImportError(f"{package} is not installed; pip install 'django-workbeat[{extra}]'") from exc


# msgpack and YAML have the types of JSON and carry the others as JSON does, so that a format can be changed freely. --


def _write_msgpack(value: Any) -> bytes:
    msgpack = _needed("msgpack", "msgpack", "msgpack")
    written: bytes = msgpack.packb(typed_json.tag(value), unicode_errors="surrogatepass")
    return written


def _read_msgpack(content: bytes) -> Any:
    msgpack = _needed("msgpack", "msgpack", "msgpack")
    value = msgpack.unpackb(content, ext_hook=_refuse_extension, timestamp=3, unicode_errors="surrogatepass")
    typed_json.check_depth(value)
    return typed_json.untag(value)


def _refuse_extension(code: int, content: bytes) -> Any:
    raise ValueError(f"msgpack's extension type {code} is not known here")


def _write_yaml(value: Any) -> str:
    yaml = _needed("yaml", "PyYAML", "yaml")

    class Dumper(yaml.SafeDumper):  # type: ignore[misc, name-defined]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    written: str = yaml.dump(typed_json.tag(value), Dumper=Dumper, sort_keys=False)
    return written


def _read_yaml(text: str) -> Any:
    yaml = _needed("yaml", "PyYAML", "yaml")

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        def compose_node(self, parent: Any, index: Any) -> Any:
            # A few aliases of aliases are as good as a bomb.
            if self.check_event(yaml.AliasEvent):
                raise ValueError("YAML's aliases are not allowed")
            return super().compose_node(parent, index)

    value = yaml.load(text, Loader=Loader)
    typed_json.check_depth(value)
    return typed_json.untag(value)


_PICKLE: Final = "application/x-python-serialize"


def _check_pickle() -> None:
    if not settings.ALLOW_UNSAFE_PICKLE or not {"pickle", _PICKLE} & set(settings.ACCEPT_CONTENT):
        raise ContentDisallowed(
            "pickle can run any code; it needs ALLOW_UNSAFE_PICKLE = True and 'pickle' in ACCEPT_CONTENT."
        )


def _write_pickle(value: Any) -> bytes:
    _check_pickle()
    return pickle.dumps(value, protocol=5)


def _read_pickle(content: bytes) -> Any:
    _check_pickle()
    return pickle.loads(content)  # noqa: S301 - the settings say so twice


for _each in (
    Serializer("json", typed_json.encode, typed_json.decode, "application/json", binary=False),
    Serializer("msgpack", _write_msgpack, _read_msgpack, "application/x-msgpack", binary=True),
    Serializer("yaml", _write_yaml, _read_yaml, "application/x-yaml", binary=False),
    Serializer("pickle", _write_pickle, _read_pickle, _PICKLE, binary=True),
):
    _serializers[_each.name] = _each


# Compressions: each stops at the limit, so that a bomb never comes to be. --------------------------------------------


def _inflate(window: int) -> Callable[[bytes, int], bytes]:
    def decompress(content: bytes, limit: int) -> bytes:
        expander = zlib.decompressobj(window)
        expanded = expander.decompress(content, limit + 1)
        if not expander.eof and len(expanded) <= limit:
            raise ValueError("the data end too early")
        return expanded

    return decompress


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        return import_module("compression.zstd")
    return _needed("zstandard", "zstandard", "zstd")


def _compress_zstd(content: bytes) -> bytes:
    compressed: bytes = _zstd().compress(content)
    return compressed


def _decompress_zstd(content: bytes, limit: int) -> bytes:
    zstd = _zstd()
    expanded: bytes
    if sys.version_info >= (3, 14):
        decompressor = zstd.ZstdDecompressor()
        expanded = decompressor.decompress(content, limit + 1)
        if not decompressor.eof and len(expanded) <= limit:
            raise ValueError("the data end too early")
    else:
        expanded = zstd.ZstdDecompressor(max_window_size=2**27).stream_reader(content).read(limit + 1)
    return expanded


for _way in (
    Compression("gzip", lambda content: gzip.compress(content, mtime=0), _inflate(16 + zlib.MAX_WBITS)),
    Compression("zlib", zlib.compress, _inflate(zlib.MAX_WBITS)),
    Compression("zstd", _compress_zstd, _decompress_zstd),
):
    _compressions[_way.name] = _way
