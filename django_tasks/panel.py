"""The commands that workers obey, by name, and the decorators that declare them. Celery's control panel.

A command is declared where tasks are, and known to every process that imports it: workers run it, and the command line
shows what it takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

F = TypeVar("F", bound=Callable[..., Any])
Kind = Literal["control", "inspect"]
#: The name of an argument, and what makes it of a word of the command line; ``None``: the word itself.
Argument = tuple[str, Callable[[str], Any] | None]


@dataclass(frozen=True, slots=True)
class CommandInfo:
    """A command that workers obey."""

    name: str
    function: Callable[..., Any]
    #: ``inspect`` only looks, ``control`` changes something.
    kind: Kind
    #: What the command line gives in order.
    args: tuple[Argument, ...] = ()
    #: The name of the argument that takes the rest of the command line as a list.
    variadic: str | None = None
    #: The arguments as a help text shows them.
    signature: str = ""
    help: str = ""
    #: Another name under which workers obey it.
    alias: str | None = None
    #: Does the command line list and send it?
    visible: bool = True
    #: Seconds for which the command line waits for replies, unless told otherwise.
    default_timeout: float = 1.0
    #: Is it one of this package's own? These run in the steward's thread; others may take their time.
    builtin: bool = False


#: The commands that this process knows, by name and alias.
commands: dict[str, CommandInfo] = {}


def visible(kind: Kind) -> dict[str, CommandInfo]:
    """Return the commands of a kind that the command line lists and sends, by name, in order."""
    return {name: info for name, info in sorted(commands.items()) if _is_listed(name, info) and info.kind == kind}


def _is_listed(name: str, info: CommandInfo) -> bool:
    return info.visible and name == info.name


@overload
def control_command(function: F) -> F: ...
@overload
def control_command(
    *,
    name: str | None = None,
    alias: str | None = None,
    visible: bool = True,
    default_timeout: float = 1.0,
    help: str | None = None,
    signature: str | None = None,
    args: Sequence[Argument] | None = None,
    variadic: str | None = None,
) -> Callable[[F], F]: ...
def control_command(function: Any = None, **options: Any) -> Any:
    """Add a command that changes something in a worker; ``manage.py tasks control`` and ``broadcast()`` send it.

    ``function(state, **arguments)`` runs in each worker that is asked, in the worker's main process, in a thread for
    such commands (one at a time, ten seconds at most); what it returns, as JSON, is the reply. ``state`` is a
    :class:`~django_tasks.worker.remote.State`. Workers know a command once its module is imported, so declare it where
    tasks are. As Celery's decorator, with its options:

    - ``name`` is the function's own unless given. Under ``alias`` workers obey, too; the command line does not know it.
    - ``args`` are names and types of arguments in the order of the command line (a type of ``None`` leaves a word as it
      is), ``variadic`` names one that takes the rest as a list.
    - ``signature`` is how help shows them: unless given, their names, in brackets where the function has a default.
    - ``help`` is the beginning of the docstring unless given.
    - ``visible=False``: the command line neither lists nor sends it; ``broadcast()`` and ``inspect().ask()`` do.
    - ``default_timeout``: for so many seconds the command line waits for replies, unless it is told.

    Raises ``TypeError`` for another option, and ``ValueError`` for a value that cannot be, for an argument that the
    function does not take, and if another function has the name.
    """
    return _adding(function, "control", options)


@overload
def inspect_command(function: F) -> F: ...
@overload
def inspect_command(
    *,
    name: str | None = None,
    alias: str | None = None,
    visible: bool = True,
    default_timeout: float = 1.0,
    help: str | None = None,
    signature: str | None = None,
    args: Sequence[Argument] | None = None,
    variadic: str | None = None,
) -> Callable[[F], F]: ...
def inspect_command(function: Any = None, **options: Any) -> Any:
    """Add a command that only looks, as :func:`control_command` adds one that acts; ``manage.py tasks inspect`` sends
    it."""
    return _adding(function, "inspect", options)


def _adding(function: Any, kind: Kind, options: Mapping[str, Any]) -> Any:
    def add(function: F) -> F:
        add_command(function, kind, **options)
        return function

    return add if function is None else add(function)


def add_command(
    function: Callable[..., Any],
    kind: Kind,
    *,
    name: str | None = None,
    alias: str | None = None,
    visible: bool = True,
    default_timeout: float = 1.0,
    help: str | None = None,
    signature: str | None = None,
    args: Sequence[Argument] | None = None,
    variadic: str | None = None,
    builtin: bool = False,
) -> None:
    """Add a command, as :func:`control_command` and :func:`inspect_command` do."""
    name = name or function.__name__
    names = [name] if alias is None else [name, alias]
    for each in names:
        _check_free(each, function)
    _check(name, visible, default_timeout, args or ())
    given = tuple(args or ())
    shown = _signature(function, name, [each for each, _ in given], variadic)
    text = help if help is not None else (inspect.getdoc(function) or "").partition("\n\n")[0]
    info = CommandInfo(
        name,
        function,
        kind,
        given,
        variadic,
        shown if signature is None else signature,
        " ".join(text.split()),
        alias,
        visible,
        default_timeout,
        builtin,
    )
    commands.update(dict.fromkeys(names, info))


def _check(command: str, visible: Any, default_timeout: Any, args: Sequence[Any]) -> None:
    """Raise ``ValueError`` for what these options of a command cannot be."""
    if not isinstance(visible, bool):
        raise ValueError(f"visible of the command {command!r} must be True or False, not {visible!r}")
    if isinstance(default_timeout, bool) or not isinstance(default_timeout, int | float) or default_timeout <= 0:
        raise ValueError(
            f"default_timeout of the command {command!r} must be a number of seconds above 0, not {default_timeout!r}"
        )
    for pair in args:
        if not _is_argument(pair):
            raise ValueError(
                f"args of the command {command!r} must be pairs (name, type), the type something that makes a value of "
                f"a word, or None; not {pair!r}"
            )


def _check_free(name: Any, function: Callable[..., Any]) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= 255:
        raise ValueError(f"A command is a name of 1 to 255 characters, not {name!r}")
    there = commands.get(name)
    if there is not None and _home(there.function) != _home(function):
        raise ValueError(
            f"The command {name!r} is taken: {_home(there.function)} has it, {_home(function)} asks for it."
        )


def _is_argument(pair: Any) -> bool:
    if not isinstance(pair, tuple) or len(pair) != 2:
        return False
    return isinstance(pair[0], str) and (pair[1] is None or callable(pair[1]))


def _signature(function: Callable[..., Any], command: str, args: Sequence[str], variadic: str | None) -> str:
    """Return what help shows unless told otherwise. Raises ``ValueError`` for what the function does not take."""
    takes = inspect.signature(function).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in takes.values())
    words = []
    for name in args if variadic is None else [*args, variadic]:
        if name not in takes and not takes_any:
            raise ValueError(f"The command {command!r} has an argument {name!r} that {_home(function)} does not take.")
        word = f"{name.upper()} …" if name == variadic else name.upper()
        words.append(word if name in takes and takes[name].default is inspect.Parameter.empty else f"[{word}]")
    return " ".join(words)


def _home(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
