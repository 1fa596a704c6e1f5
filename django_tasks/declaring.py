"""``shared_task``: declaring a function as a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from . import exceptions, registry
from .options import check_declared
from .task import Task

P = ParamSpec("P")
R = TypeVar("R")


class _Decorator(Protocol):
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class _BoundDecorator(Protocol):
    # A function that takes **kwargs could be given its "self" by name: for mypy, write ``def f(self, /, **kwargs)``.
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> Task[P, R]: ...


@overload
def shared_task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def shared_task(*, bind: Literal[True], **options: Any) -> _BoundDecorator: ...
@overload
def shared_task(*, bind: Literal[False] = ..., **options: Any) -> _Decorator: ...
def shared_task(*args: Any, **options: Any) -> Any:
    """Declare a function as a task: ``@shared_task`` or ``@shared_task(bind=True, max_retries=5)``.

    The options are the attributes of :class:`Task`, and ``base``, a subclass of it; others become attributes of the
    task.

    Raises :class:`~django_tasks.exceptions.ImproperlyConfigured` for an option that is misspelt, of a bad value, or not
    available; :class:`~django_tasks.exceptions.AlreadyRegistered` if another function has the name.
    """
    if not args:
        return lambda function: _declare(function, options)
    if len(args) == 1 and callable(args[0]):
        return _declare(args[0], options)
    raise TypeError(f"@shared_task takes options by name only, as in @shared_task(queue='mail'); not {args!r}")


def _declare(function: Any, options: dict[str, Any]) -> Task[..., Any]:
    if inspect.isclass(function):
        raise TypeError(f"@shared_task is for functions, not the class {function!r}; register_task() is for classes")
    if not callable(function) or not hasattr(function, "__name__"):
        raise TypeError(f"@shared_task is for functions, not {function!r}")
    options = dict(options)
    base = options.pop("base", None) or Task
    if not (isinstance(base, type) and issubclass(base, Task)):
        raise exceptions.ImproperlyConfigured(
            f"@shared_task(base={base!r}): base must be a subclass of django_tasks.Task"
        )
    bind = options.pop("bind", False)
    name = options.pop("name", None) or registry.gen_task_name(function)
    if not isinstance(bind, bool):
        raise exceptions.ImproperlyConfigured(f"@shared_task(bind={bind!r}) on {name}: bind must be True or False")
    check_declared(Task, options, name)
    # AMQP's names for where a message goes: here, to a queue.
    queue = options.pop("routing_key", None), options.pop("exchange", None)
    if options.get("queue") is None and any(queue):
        options["queue"] = queue[0] or queue[1]
    # A function among the members of a class would be a method of the task.
    functions = {one: staticmethod(options[one]) for one in ("key", "unique") if callable(options.get(one))}
    members = {
        **options,
        **functions,
        "name": name,
        "run": function if bind else staticmethod(function),
        "_bound": bind,
        "__doc__": function.__doc__,
        "__module__": function.__module__,
        "__wrapped__": staticmethod(function),
    }
    task = cast("Task[..., Any]", type(function.__name__, (base,), members)())
    return cast("Task[..., Any]", registry.tasks.register(task))
