"""Checks of a task's arguments: against the function's signature, and against its annotations with pydantic."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, get_type_hints

from .exceptions import ImproperlyConfigured


class Arguments:
    """What a function takes. ``bound`` functions get the task itself as their first argument."""

    def __init__(self, function: Callable[..., Any], *, bound: bool) -> None:
        parameters = list(inspect.signature(function).parameters.values())
        if bound:
            if not parameters or parameters[0].kind not in (
                inspect.Parameter.POSITIONAL_ONLY,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                inspect.Parameter.VAR_POSITIONAL,
            ):
                raise TypeError(
                    f"{_name(function)} is declared with bind=True and so must take the task as its first argument"
                )
            if parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
                parameters = parameters[1:]
        self.name = _name(function)
        self.signature = inspect.Signature(parameters)
        self._positional = [
            one
            for one in parameters
            if one.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        ]
        needs_names = any(
            one.kind is inspect.Parameter.KEYWORD_ONLY and one.default is inspect.Parameter.empty for one in parameters
        )
        # Most calls are positional: counting is a hundredth of the cost of binding.
        self._fewest = (
            sum(one.default is inspect.Parameter.empty for one in self._positional) if not needs_names else 1 << 30
        )
        rest = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters)
        self._most = 1 << 30 if rest else len(self._positional)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise ``TypeError`` if the function cannot be called like this."""
        if not kwargs and self._fewest <= len(args) <= self._most:
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}. It takes {self.signature}") from None

    def takes(self, name: str) -> bool:
        """Can an argument of this name be given?"""
        named = self.signature.parameters.get(name)
        if named is not None:
            return named.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in self.signature.parameters.values())

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by their names, with defaults: the same for all ways to write the call.

        Raises ``TypeError`` if the function cannot be called like this.
        """
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        found = dict(bound.arguments)
        for name, one in self.signature.parameters.items():
            if one.kind is inspect.Parameter.VAR_KEYWORD:
                found |= found.pop(name)
        return found

    def merged(
        self,
        old_args: Sequence[Any],
        old_kwargs: Mapping[str, Any],
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments of a repeated call: the new ones, and of the old ones what these do not replace.

        As in Celery, ``args`` replace all that was given by position and ``kwargs`` all that was given by name, also
        where a parameter changes from the one to the other.
        """
        either = inspect.Parameter.POSITIONAL_OR_KEYWORD
        if args is not None and kwargs is None:
            filled = {one.name for one in self._positional[: len(args)] if one.kind is either}
            return args, {name: value for name, value in old_kwargs.items() if name not in filled}
        if kwargs is not None and args is None:
            try:
                bound = self.signature.bind_partial(*old_args)
            except TypeError:  # a call that does not fit, sent without typing
                return old_args, kwargs
            named = dict(kwargs)
            for one in self._positional:
                if one.kind is either and one.name in bound.arguments and one.name in named:
                    bound.arguments[one.name] = named.pop(one.name)
            return bound.args, named
        return (old_args if args is None else args), (old_kwargs if kwargs is None else kwargs)


class Models:
    """A function's annotations as pydantic sees them (``pydantic=True``): arguments are validated when sent and when
    run.

    Unlike Celery's, every annotation counts, not only models; the caller may pass models or plain data.
    """

    def __init__(
        self, function: Callable[..., Any], arguments: Arguments, *, strict: bool, context: Mapping[str, Any] | None
    ) -> None:
        try:
            import pydantic
        except ImportError as error:
            raise ImproperlyConfigured(
                "pydantic=True needs pydantic: pip install 'django-workbeat[pydantic]'"
            ) from error
        self._pydantic = pydantic
        self._function = function
        self._arguments = arguments
        self._options = {"strict": strict or None, "context": dict(context) if context else None}
        self._adapters: dict[str, Any] | None = None

    def sent(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], sensitive: Collection[str] = ()
    ) -> tuple[list[Any], dict[str, Any]]:
        """Validate what the caller gave and return it as plain data. Raises ``pydantic.ValidationError``; it does not
        tell the values of arguments of the names in ``sensitive``."""

        def treat(adapter: Any, value: Any) -> Any:
            return adapter.dump_python(adapter.validate_python(value, **self._options), mode="json")

        return self._each(args, kwargs, treat, sensitive)

    def received(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], sensitive: Collection[str] = ()
    ) -> tuple[list[Any], dict[str, Any]]:
        """Validate plain data and return what the function expects. Raises as :meth:`sent` does."""

        def treat(adapter: Any, value: Any) -> Any:
            # Plain data has no dates or tuples; strict validation knows how JSON spells them.
            return adapter.validate_python(value, context=self._options["context"])

        return self._each(args, kwargs, treat, sensitive)

    def returned(self, value: Any, **dump: Any) -> Any:
        """Return models, also those in lists, tuples and dicts, as plain data; anything else unchanged."""
        if isinstance(value, self._pydantic.BaseModel):
            return value.model_dump(**{"mode": "json", **dump})
        if isinstance(value, list | tuple):
            return [self.returned(one, **dump) for one in value]
        if isinstance(value, dict):
            return {key: self.returned(one, **dump) for key, one in value.items()}
        return value

    def _each(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        treat: Callable[[Any, Any], Any],
        sensitive: Collection[str] = (),
    ) -> tuple[list[Any], dict[str, Any]]:
        bound = self._arguments.signature.bind(*args, **kwargs)
        adapters = self._by_name()
        for name, value in bound.arguments.items():
            adapter = adapters.get(name)
            if adapter is None:
                continue
            try:
                bound.arguments[name] = self._treated(name, value, partial(treat, adapter))
            except self._pydantic.ValidationError as error:
                if name not in sensitive:
                    raise
                raise self._without_values(error) from None
        return list(bound.args), dict(bound.kwargs)

    def _treated(self, name: str, value: Any, treat: Callable[[Any], Any]) -> Any:
        kind = self._arguments.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return tuple(treat(one) for one in value)
        if kind is inspect.Parameter.VAR_KEYWORD:
            return {key: treat(one) for key, one in value.items()}
        return treat(value)

    def _without_values(self, error: Any) -> Exception:
        """Return the same error as if it had not seen what it refuses; the texts of own validators are left out."""
        from pydantic_core import PydanticCustomError

        lines: list[Any] = []
        for one in error.errors(include_input=False, include_url=False, include_context=False):
            own = one["type"] in ("value_error", "assertion_error")
            text = "The value is not allowed" if own else one["msg"]
            lines.append({"type": PydanticCustomError(one["type"], text), "loc": one["loc"], "input": None})
        made: Exception = self._pydantic.ValidationError.from_exception_data(error.title, lines, hide_input=True)
        return made

    def _by_name(self) -> dict[str, Any]:
        # Late, because annotations may be strings that name what is declared below the task.
        if self._adapters is None:
            hints = get_type_hints(self._function, include_extras=True)
            self._adapters = {
                name: self._pydantic.TypeAdapter(hints[name])
                for name in self._arguments.signature.parameters
                if name in hints
            }
        return self._adapters


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
