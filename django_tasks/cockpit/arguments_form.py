"""A form made from what a function takes: a field for each parameter, by its annotation, JSON where nothing fits."""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final, Literal, Union
from uuid import UUID

from django import forms
from django.utils.translation import gettext_lazy as _

from ..redaction import HIDDEN, is_secret

Parameter = inspect.Parameter

_SIMPLE: Final[Mapping[Any, type[forms.Field]]] = {
    int: forms.IntegerField,
    float: forms.FloatField,
    Decimal: forms.DecimalField,
    date: forms.DateField,
    datetime: forms.DateTimeField,
    time: forms.TimeField,
    UUID: forms.UUIDField,
}
_PREFIX: Final = "arg-"
_BY_POSITION: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_STARS: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class ArgumentsForm(forms.Form):
    """Asks for the arguments of one task. :meth:`call` gives them once the form is valid."""

    def __init__(self, task: Any, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data)
        self._parameters = list(task._arguments.signature.parameters.values())
        hints = _hints(task.run)
        for one in self._parameters:
            field = self.fields[_PREFIX + one.name] = _field(one, hints.get(one.name, one.annotation))
            if one.name in task.sensitive or is_secret(one.name):
                _cover(field)

    def call(self) -> tuple[list[Any], dict[str, Any]]:
        """Return args and kwargs; what was left empty and has a default is not among them, unless something behind it
        is given by position, and it has to be, too."""
        values = {one.name: self.cleaned_data.get(_PREFIX + one.name) for one in self._parameters}
        given = {one.name: values[one.name] for one in self._parameters if not _is_left_out(one, values[one.name])}
        rest, more = self._starred(given, Parameter.VAR_POSITIONAL), self._starred(given, Parameter.VAR_KEYWORD)
        places = [one for one in self._parameters if one.kind in _BY_POSITION]
        while places and not (rest or (places[-1].kind is Parameter.POSITIONAL_ONLY and places[-1].name in given)):
            places.pop()
        args = [given.pop(one.name, one.default) for one in places]
        return [*args, *(rest or ())], {**given, **(more or {})}

    def _starred(self, given: dict[str, Any], kind: Any) -> Any:
        """Take what was given for ``*args`` or ``**kwargs`` out, and return it; ``None`` if nothing was."""
        return next((given.pop(one.name, None) for one in self._parameters if one.kind is kind), None)


def _cover(field: forms.Field) -> None:
    """Let nobody read over the shoulder what is typed; it has to be typed again if anything is wrong."""
    if isinstance(field.widget, forms.TextInput | forms.Textarea):
        field.widget = forms.PasswordInput(attrs={"autocomplete": "off"})
    if "= " in field.help_text:
        field.help_text = f"{str(field.help_text).partition('= ')[0]}= {HIDDEN}"


def _is_left_out(one: Parameter, value: Any) -> bool:
    if one.kind in _STARS:
        return not value
    return one.default is not Parameter.empty and value in (None, "")


def _field(one: Parameter, annotation: Any) -> forms.Field:
    if one.kind is Parameter.VAR_POSITIONAL:
        return _JSONOf(list, label=f"*{one.name}", required=False)
    if one.kind is Parameter.VAR_KEYWORD:
        return _JSONOf(dict, label=f"**{one.name}", required=False)
    has_default = one.default is not Parameter.empty
    kind, may_be_none = _without_none(annotation)
    common: dict[str, Any] = {
        "label": one.name,
        "required": not has_default and not may_be_none,
        "help_text": _help(one, annotation),
    }
    if kind is bool:
        choices = [("true", _("yes")), ("false", _("no"))]
        return _choice(choices, lambda text: text == "true", has_default or may_be_none, common)
    if typing.get_origin(kind) is Literal:
        return _among(typing.get_args(kind), has_default or may_be_none, common)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _among([member.value for member in kind], has_default or may_be_none, common)
    if kind is str:
        # An empty text is a text; left out is only what has a default.
        return forms.CharField(**{**common, "required": False}, strip=False, widget=forms.Textarea(attrs={"rows": 1}))
    if kind in _SIMPLE:
        return _SIMPLE[kind](**common)
    return _AnyJSON(**common, widget=forms.Textarea(attrs={"rows": 2}))


class _AnyJSON(forms.JSONField):
    """JSON, also such as Python's parser gives up on: numbers of thousands of digits, or far too deep."""

    def __init__(self, **options: Any) -> None:
        # An empty field is empty, and not "null".
        super().__init__(initial=forms.fields.InvalidJSONInput(""), **options)

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except (ValueError, RecursionError) as error:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from error

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            return super().bound_data(data, initial)
        except (ValueError, RecursionError):
            return forms.fields.InvalidJSONInput(data)


class _JSONOf(_AnyJSON):
    """JSON of one kind."""

    def __init__(self, kind: type, **options: Any) -> None:
        super().__init__(**options, widget=forms.Textarea(attrs={"rows": 2}))
        self._kind = kind

    def clean(self, value: Any) -> Any:
        found = super().clean(value)
        if found is not None and not isinstance(found, self._kind):
            what = _("a JSON list") if self._kind is list else _("a JSON object")
            raise forms.ValidationError(_("Give %(what)s."), params={"what": what})
        return found


def _among(values: Any, optional: bool, common: dict[str, Any]) -> forms.Field:
    known = list(values)
    choices = [(str(place), str(value)) for place, value in enumerate(known)]
    return _choice(choices, lambda text: known[int(text)], optional, common)


def _choice(
    choices: list[tuple[str, Any]], coerce: Callable[[str], Any], optional: bool, common: dict[str, Any]
) -> forms.Field:
    empty = [("", "–")] if optional else []
    return forms.TypedChoiceField(choices=[*empty, *choices], coerce=coerce, empty_value=None, **common)


def _help(one: Parameter, annotation: Any) -> str:
    told = [] if annotation is Parameter.empty else [inspect.formatannotation(annotation)]
    if one.default is not Parameter.empty:
        told.append(f"= {_cut(repr(one.default))}")
    return " ".join(told)


def _cut(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:99]}…"


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        rest = [each for each in typing.get_args(annotation) if each is not type(None)]
        if len(rest) < len(typing.get_args(annotation)):
            return (rest[0] if len(rest) == 1 else Any), True
    return annotation, False


def signature_text(task: Any) -> str:
    """Return what a task takes, as a declaration would say it."""
    hints = _hints(task.run)
    signature: inspect.Signature = task._arguments.signature
    told = [one.replace(annotation=hints.get(one.name, one.annotation)) for one in signature.parameters.values()]
    return str(signature.replace(parameters=told))


def _hints(function: Any) -> dict[str, Any]:
    """Return annotations as types; none of them if one cannot be found where the function was declared."""
    try:
        return typing.get_type_hints(getattr(function, "__func__", function))
    except Exception:
        return {}
