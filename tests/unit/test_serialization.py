from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
import types
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from decimal import Decimal
from importlib import import_module
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.test import override_settings
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from django_tasks.exceptions import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    PayloadTooLarge,
    SerializationError,
    UnpickleableExceptionWrapper,
)
from django_tasks.serialization import (
    check_formats,
    dumps,
    ensure_fits,
    exception_from_data,
    exception_to_data,
    loads,
    register,
    register_compression,
    storable,
    unregister,
)

from .values import JSON_ONLY, nested, same, scalars, tagged, texts

ALL = ("json", "msgpack", "yaml", "pickle", "reversed", "hex")


# Formats and compressions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", ["msgpack", "yaml"])
@given(value=nested(scalars.filter(lambda value: type(value) is not int or -(2**63) <= value < 2**64) | tagged))
@effort(max_examples=60)
def test_every_format_keeps_the_same_types(serializer: str, value: Any) -> None:
    encoding, text = dumps(value, serializer)
    assert encoding == serializer
    assert storable(text) == text
    assert same(loads(text, encoding, ALL), value)


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml"])
@pytest.mark.parametrize("compression", ["gzip", "zlib", "zstd"])
def test_a_compressed_value_comes_back_and_is_smaller(serializer: str, compression: str) -> None:
    value = [["order"] * 5000, {"day": date(2026, 1, 2), "odd": "\ud800"}]
    encoding, text = dumps(value, serializer, compression)
    assert encoding == f"{serializer}+{compression}"
    assert text.isascii()
    assert len(text) < len(dumps(value, serializer)[1]) / 10
    assert loads(text, encoding, ALL) == value


def test_compressed_text_is_the_same_each_time() -> None:
    assert dumps([1], compression="gzip") == dumps([1], compression="gzip")


@pytest.mark.parametrize(
    "encoding",
    ["", "json", "msgpack", "yaml", "json+gzip", "json+zlib", "json+zstd", "msgpack+zlib", "no", "json+no", "+",
     "+gzip", "json+gzip+gzip", "pickle"],
)  # fmt: skip
@given(
    text=texts
    | st.binary().map(lambda content: base64.b64encode(content).decode())
    | st.binary().map(lambda content: base64.b64encode(zlib.compress(content)).decode())
)
@effort(max_examples=40)
def test_no_stored_text_raises_anything_but_ours(encoding: str, text: str) -> None:
    """S1, R15."""
    with suppress(SerializationError):
        loads(text, encoding, ALL)


@pytest.mark.parametrize(
    ("encoding", "accept", "allowed"),
    [
        ("", ["json"], True),
        ("", ["application/json"], True),
        ("", ["msgpack"], False),
        ("json+gzip", {"application/json"}, True),
        ("json+gzip", {"msgpack"}, False),
        ("msgpack", ["application/x-msgpack"], True),
        ("msgpack", ["json"], False),
        ("pickle", ["json"], False),
        ("unheard-of", ["json"], False),
        ("", [], False),
    ],
)
def test_only_accepted_formats_are_read(encoding: str, accept: Any, allowed: bool) -> None:
    serializer, _, compression = (encoding or "json").partition("+")
    text = "!"
    if allowed:
        _, text = dumps([1], serializer, compression or None)
        assert loads(text, encoding, accept) == [1]
    else:
        with pytest.raises(ContentDisallowed, match="ACCEPT_CONTENT allows only"):
            loads(text, encoding, accept)


@pytest.mark.parametrize("compression", ["gzip", "zlib", "zstd"])
def test_a_decompression_bomb_is_refused_before_it_is_made(compression: str) -> None:
    squeeze = {"gzip": "gzip", "zlib": "zlib", "zstd": "zstandard"}[compression]
    if compression == "zstd" and sys.version_info >= (3, 14):
        squeeze = "compression.zstd"
    bomb = base64.b64encode(import_module(squeeze).compress(b"[" + b" " * 50_000_000 + b"]")).decode()
    assert len(bomb) < 100_000
    with pytest.raises(PayloadTooLarge, match="10 times PAYLOAD_LIMIT"):
        loads(bomb, f"json+{compression}", JSON_ONLY)


@pytest.mark.parametrize("compression", ["gzip", "zlib", "zstd"])
@pytest.mark.parametrize("kept", [0, 1, 10, -1])
def test_truncated_data_are_refused(compression: str, kept: int) -> None:
    encoding, text = dumps(["x" * 100], compression=compression)
    torn = base64.b64encode(base64.b64decode(text)[:kept]).decode()
    with pytest.raises(DecodeError):
        loads(torn, encoding, JSON_ONLY)


def test_text_is_measured_before_it_is_read() -> None:
    with override_settings(DJANGO_TASKS={"PAYLOAD_LIMIT": 1024}):
        for encoding in ("", "yaml", "msgpack", "json+gzip"):
            with pytest.raises(PayloadTooLarge):
                loads("!" * 10_241, encoding, ALL)
        with pytest.raises(PayloadTooLarge):
            dumps("x" * 10_241, compression="gzip")
        assert dumps("x" * 9_000, compression="gzip")


def test_a_payload_is_measured_in_bytes() -> None:
    with override_settings(DJANGO_TASKS={"PAYLOAD_LIMIT": 1024}):
        ensure_fits("x" * 1024)
        ensure_fits("é" * 512)
        with pytest.raises(PayloadTooLarge, match="The result is 1026 bytes, more than PAYLOAD_LIMIT = 1024"):
            ensure_fits("é" * 513, "The result")


@pytest.mark.parametrize(
    "text",
    ["a: &a [1]\nb: *a", "&a [*a]", "!!python/object/apply:os.system ['true']", "a: !!python/name:os.system",
     "[" * 5000, "{[1]: 2}", "x: " + "9" * 20_000, "- " * 5000],
)  # fmt: skip
def test_hostile_yaml_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        loads(text, "yaml", ALL)


def test_yaml_repeats_what_is_used_twice() -> None:
    shared = [1]
    assert loads(dumps([shared, shared], "yaml")[1], "yaml", ALL) == [[1], [1]]


def test_pickle_needs_to_be_allowed_twice() -> None:
    for half in ({}, {"ALLOW_UNSAFE_PICKLE": True}, {"ACCEPT_CONTENT": ["json", "pickle"]}):
        with override_settings(DJANGO_TASKS=half):
            with pytest.raises(ContentDisallowed, match="ALLOW_UNSAFE_PICKLE = True and 'pickle' in ACCEPT_CONTENT"):
                dumps({1}, "pickle")
            with pytest.raises(ContentDisallowed):
                loads(base64.b64encode(pickle.dumps({1})).decode(), "pickle", ["pickle"])
    with override_settings(DJANGO_TASKS={"ALLOW_UNSAFE_PICKLE": True, "ACCEPT_CONTENT": ["json", "pickle"]}):
        encoding, text = dumps({1, 2}, "pickle")
        assert loads(text, encoding, ["pickle"]) == {1, 2}
        with pytest.raises(ContentDisallowed):
            loads(text, encoding, ["json"])


@pytest.fixture
def own_formats() -> Iterator[None]:
    register("reversed", lambda value: json.dumps(value)[::-1], lambda text: json.loads(text[::-1]), "text/reversed")
    register("raw", lambda value: bytes(value), lambda content: list(content), "application/raw", "binary")
    register("bad", lambda value: "\x00", lambda text: text, "text/bad")
    register("wrong", lambda value: value, lambda text: text, "text/wrong")
    register_compression("hex", lambda content: content.hex().encode(), lambda content: bytes.fromhex(content.decode()))
    yield
    for name in ("reversed", "raw", "bad", "wrong"):
        unregister(name)


@pytest.mark.usefixtures("own_formats")
def test_a_project_may_register_formats_of_its_own() -> None:
    assert dumps([1], "reversed") == ("reversed", "]1[")
    assert loads("]1[", "reversed", ["text/reversed"]) == [1]
    assert dumps([1, 255], "raw") == ("raw", "Af8=")
    assert loads("Af8=", "raw", ["raw"]) == [1, 255]
    encoding, text = dumps([1], "reversed", "hex")
    assert loads(text, encoding, ["reversed"]) == [1]
    with override_settings(DJANGO_TASKS={"PAYLOAD_LIMIT": 1024}), pytest.raises(PayloadTooLarge):
        loads(base64.b64encode(b"61" * 10_241).decode()[:14_000], "reversed+hex", ["reversed"])


@pytest.mark.usefixtures("own_formats")
@pytest.mark.parametrize(
    ("value", "serializer", "compression", "text"),
    [
        (object(), "reversed", None, "The 'reversed' serializer cannot encode the value: TypeError"),
        (1, "bad", None, "wrote NUL bytes or lone surrogates; register it as binary"),
        (b"1", "wrong", None, "wrote a bytes; it is registered for text"),
        (1, "jsom", None, "No serializer 'jsom' is registered here. Did you mean 'json'?"),
        (1, "json", "lzw", "No compression 'lzw' is registered here. Registered: gzip, hex, zlib, zstd."),
        (2**64, "msgpack", None, "OverflowError"),
    ],
)
def test_what_a_format_cannot_do_is_an_encode_error(
    value: Any, serializer: str, compression: str | None, text: str
) -> None:
    with pytest.raises(EncodeError) as caught:
        dumps(value, serializer, compression)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("json", str, str, "a/b"), "is built in"),
        (("a+b", str, str, "a/b"), "The serializer name is 'a+b'; allowed"),
        (
            ("ok", str, str, "a/b", "latin-1"),
            "content_encoding is 'latin-1'; allowed: 'utf-8' (text) or 'binary' (bytes)",
        ),
    ],
)
def test_a_malformed_registration_is_refused(arguments: Any, text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        register(*arguments)
    assert text in str(caught.value)
    with pytest.raises(TypeError, match="where a function is needed"):
        register("ok", "no function", str, "a/b")  # type: ignore[arg-type]
    with pytest.raises(LookupError, match="No serializer 'ok' is registered"):
        unregister("ok")
    with pytest.raises(ValueError, match="built in"):
        unregister("json")


@pytest.mark.parametrize(
    ("changed", "problems"),
    [
        ({}, []),
        ({"TASK_SERIALIZER": "msgpack", "ACCEPT_CONTENT": ["json", "application/x-msgpack"]}, []),
        ({"RESULT_COMPRESSION": "zstd"}, []),
        ({"RESULT_SERIALIZER": "yaml"}, ["is 'yaml', which DJANGO_TASKS['ACCEPT_CONTENT'] does not accept"]),
        ({"TASK_SERIALIZER": "jsonn"}, ["['TASK_SERIALIZER'] is 'jsonn': No serializer 'jsonn'"]),
        ({"RESULT_COMPRESSION": "gzpi"}, ["['RESULT_COMPRESSION'] is 'gzpi': No compression 'gzpi'"]),
        ({"ACCEPT_CONTENT": ["json", "bson"]}, ["['ACCEPT_CONTENT'] has 'bson', which is no registered serializer."]),
        ({"ACCEPT_CONTENT": ["json", "pickle"]}, ["has pickle, but ALLOW_UNSAFE_PICKLE is False"]),
        ({"TASK_SERIALIZER": "pickle"}, ["pickle can run any code"]),
    ],
)  # fmt: skip
def test_the_settings_about_formats_are_checked(changed: dict[str, Any], problems: list[str]) -> None:
    with override_settings(DJANGO_TASKS=changed):
        found = check_formats()
    assert len(found) == len(problems)
    for text, problem in zip(problems, found, strict=True):
        assert text in problem


@pytest.mark.parametrize(
    ("module", "extra", "serializer", "compression"),
    [("msgpack", "msgpack", "msgpack", None), ("yaml", "yaml", "yaml", None), ("zstandard", "zstd", "json", "zstd")],
)
def test_a_missing_package_is_named_with_its_extra(
    module: str, extra: str, serializer: str, compression: str | None
) -> None:
    """In a process of its own, in which the package cannot be imported."""
    encoding = f"{serializer}+{compression}" if compression else serializer
    program = f"""
import sys
sys.modules[{module!r}] = None
from django.conf import settings
settings.configure()
from django_tasks.exceptions import DecodeError, EncodeError
from django_tasks.serialization import dumps, loads
def write(): dumps([1], {serializer!r}, {compression!r})
def read(): loads("kQE=", {encoding!r}, [{serializer!r}])
for call, error in [(write, EncodeError), (read, DecodeError)]:
    try:
        call()
    except error as exc:
        assert "pip install 'django-workbeat[{extra}]'" in str(exc), exc
    else:
        raise AssertionError
"""
    if compression == "zstd" and sys.version_info >= (3, 14):
        pytest.skip("zstd is in the standard library")
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_without_orjson_everything_works_too() -> None:
    """In a process of its own, in which orjson cannot be imported."""
    program = """
import sys
sys.modules["orjson"] = None
from datetime import date
from django.conf import settings
settings.configure()
from django_tasks import typed_json
from django_tasks.serialization import dumps, loads
assert typed_json.orjson is None
value = [[1, "é", date(2026, 1, 2), 2**70], {"a": None, "b": 1.5, "c": "\\ud800"}]
encoding, text = dumps(value)
assert loads(text, encoding, ("json",)) == value
assert dumps([[], {}]) == ("", "[[],{}]")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# Text and errors -----------------------------------------------------------------------------------------------------


@given(texts)
def test_storable_text_has_no_nul_and_is_utf8(text: str) -> None:
    kept = storable(text)
    assert "\x00" not in kept
    assert kept.encode().decode() == kept
    assert storable(kept) == kept
    if "\x00" not in text and not any(0xD800 <= ord(character) < 0xE000 for character in text):
        assert kept == text


def test_what_cannot_be_stored_stays_readable() -> None:
    assert storable("a\x00b\udc80") == "a\\x00b\\udc80"


class Sold(Exception):
    """Changes its arguments on the way to ``args``."""

    def __init__(self, item: str) -> None:
        super().__init__(f"{item} is sold")


class Priced(Exception):
    def __init__(self, item: str, price: Decimal) -> None:
        super().__init__(item, price)
        self.price = price

    def __str__(self) -> str:
        return f"{self.args[0]} costs {self.price}"


class Needy(Exception):
    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


class Outer:
    class Inner(Exception):
        pass


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


def there_and_back(exc: BaseException) -> BaseException:
    data = exception_to_data(exc)
    direct = exception_from_data(data)
    # However it travels.
    for back in (
        exception_from_data(loads(dumps(data)[1], "", JSON_ONLY)),
        exception_from_data(loads(json.dumps(data), "", JSON_ONLY)),
        exception_from_data(json.loads(json.dumps(data))),
    ):
        assert type(back) is type(direct)
        assert repr(back.args) == repr(direct.args)
        assert str(back) == str(direct)
    return direct


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("no"),
        KeyError("a"),
        OSError(2, "No such file"),
        Sold("the house"),
        Priced("the house", Decimal("1.50")),
        Needy(reason="because"),
        Outer.Inner(1, [2, {"a": date(2026, 1, 2)}]),
        ContentType.DoesNotExist("none"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ValueError({"__type__": "datetime", "__value__": "x"}),
        ValueError(),
    ],
)
def test_an_exception_whose_class_is_loaded_comes_back_as_it_was(exc: Exception) -> None:
    back = there_and_back(exc)
    assert type(back) is type(exc)
    assert back.args == exc.args
    assert str(back) == str(exc)


def test_arguments_that_cannot_be_stored_become_their_reprs() -> None:
    assert there_and_back(ValueError(ValueError("inner"), {1}, "kept")).args == ("ValueError('inner')", "{1}", "kept")
    back = there_and_back(Mute(object))
    assert isinstance(back, UnpickleableExceptionWrapper)  # one that says something
    assert back.exc_args == ("<class 'object'>",)
    assert there_and_back(ValueError(Mute())).args == ("<Mute that cannot say what it is>",)
    assert str(exception_to_data(Mute())["text"]) == "<Mute that cannot say what it is>"


def test_an_attribute_of_the_constructor_is_there_again() -> None:
    back = there_and_back(Priced("the house", Decimal("1.50")))
    assert isinstance(back, Priced)
    assert back.price == Decimal("1.50")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("shop.errors", "Sold"),
        ("builtins", "eval"),
        ("builtins", "int"),
        ("builtins", "SystemExit"),
        ("builtins", "KeyboardInterrupt"),
        ("os", "system"),
        ("os", "path.join"),
        (__name__, "Outer.Missing"),
        (__name__, "Outer"),
        (__name__, ""),
        ("", ""),
        ("a\x00b", "c\x00d\ud800"),
        ("x" * 100_000, "y" * 100_000),
    ],
)
def test_any_other_comes_back_as_a_stand_in_of_its_name(module: str, name: str) -> None:
    back = exception_from_data(
        {"exc_module": module, "exc_type": name, "exc_args": ["out"], "text": "sold out", "causes": []}
    )
    assert isinstance(back, UnpickleableExceptionWrapper)
    assert type(back) is not UnpickleableExceptionWrapper
    assert str(back) == "sold out"
    assert back.exc_args == ("out",)
    if len(name) < 50:
        assert type(back).__name__ == storable(name.rpartition(".")[2])
        assert (back.exc_module, back.exc_cls_name) == (module, name)
    copy = pickle.loads(pickle.dumps(back))  # noqa: S301 - our own
    assert str(copy) == "sold out"
    # Passed on, it is still the original that is told of.
    assert exception_to_data(back)["exc_type"] == storable(name)


@given(
    st.dictionaries(st.sampled_from(["exc_module", "exc_type", "exc_args", "text", "causes"]), nested(scalars | tagged))
)
def test_malformed_data_give_an_exception_all_the_same(data: dict[str, Any]) -> None:
    assert isinstance(exception_from_data(data), Exception)


def test_a_lazy_module_is_not_loaded_to_look_for_a_class() -> None:
    class Lazy(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"asked for {name}")

    module = Lazy("shop.lazy")
    sys.modules["shop.lazy"] = module
    try:
        back = exception_from_data({"exc_module": "shop.lazy", "exc_type": "Sold", "text": "t"})
    finally:
        del sys.modules["shop.lazy"]
    assert isinstance(back, UnpickleableExceptionWrapper)


def test_causes_are_told_nearest_first_and_endless_chains_end() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise ValueError("second") from first
    except ValueError as second:
        error = RuntimeError("third")
        error.__context__ = second
    assert exception_to_data(error)["causes"] == ["ValueError: second", "KeyError: 'first'"]
    error.__suppress_context__ = True
    assert exception_to_data(error)["causes"] == []
    ring = ValueError("ring")
    ring.__cause__ = other = ValueError("other")
    other.__cause__ = ring
    assert exception_to_data(ring)["causes"] == ["ValueError: other"]


def test_an_error_is_kept_within_bounds() -> None:
    data = exception_to_data(ValueError("x" * 10_000_000, ["y"] * 1_000_000, "\x00"))
    assert len(json.dumps(data)) < 300_000
    assert data["text"].endswith("…")
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    assert there_and_back(ValueError(deep)).args == (repr(deep),)
