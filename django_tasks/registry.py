"""The tasks that this process knows, by name.

A name in a message only ever selects from here; nothing is imported because a message names it.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import PurePath
from threading import Lock
from typing import Any, Final, TypeVar, overload

from django.apps import apps
from django.utils.module_loading import autodiscover_modules

from . import signals
from .conf import check_settings, settings
from .exceptions import AlreadyRegistered, NotRegistered

__all__ = ["TaskRegistry", "autodiscover", "gen_task_name", "register_task", "tasks"]

T = TypeVar("T")


class TaskRegistry(dict[str, Any]):
    """The registered tasks by name. Looking up an unknown name raises ``NotRegistered``, a ``KeyError``."""

    NotRegistered = NotRegistered

    def __missing__(self, name: str) -> Any:
        close = difflib.get_close_matches(str(name), self, n=1)
        hint = f". Did you mean {close[0]!r}?" if close else "; is its module imported, or named in IMPORTS?"
        raise NotRegistered(name, hint)

    def register(self, task: Any) -> Any:
        """Add ``task``, or an instance of it if it is a class, under its ``name``; return what was added.

        The same function again, after a reload of its module, replaces what it was. So does a function defined inside
        another function, such as a test: each run of that one defines it anew.

        Raises ``ValueError`` when it has no name, ``AlreadyRegistered`` when the name belongs to another function.
        """
        if inspect.isclass(task):
            task = task()
        name = getattr(task, "name", None)
        if not isinstance(name, str) or not name:
            raise ValueError(f"{task!r} cannot be registered: its name is {name!r}, and must be a text")
        # get() of a dict does not ask __missing__.
        present = self.get(name)
        if present is not None and present is not task and not _same_home(_origin(present), _origin(task)):
            raise AlreadyRegistered(
                f"The task name {name!r} is taken: {_place(present)} has it, and {_place(task)} asks for it. "
                f"Give one of them another name=."
            )
        self[name] = task
        return task

    def unregister(self, name: Any) -> None:
        """Remove a task, given itself or its name.

        Raises ``NotRegistered`` when it is not there.
        """
        name = getattr(name, "name", name)
        if self.pop(name, None) is None:
            self.__missing__(name)

    def regular(self) -> dict[str, Any]:
        """Return the tasks as a plain dict. Celery's name, which once told them from periodic tasks."""
        return dict(self)

    def own(self) -> dict[str, Any]:
        """Return the tasks that the site declared: all but those that are always there."""
        return {name: task for name, task in self.items() if not name.startswith(BUILTIN)}


#: How the names of the tasks begin that are always there.
BUILTIN: Final = "django_tasks."

#: The tasks of this process.
tasks = TaskRegistry()


@overload
def register_task(task: type[T]) -> T: ...
@overload
def register_task(task: T) -> T: ...
def register_task(task: Any) -> Any:
    """Add a class-based task, given as its class or an instance; return the instance.

    ``class Resize(Task)`` with a method ``run`` is called like any task then: ``Resize = register_task(Resize)``. Its
    name is ``module.Class`` unless it has one.

    Raises as :meth:`TaskRegistry.register` does.
    """
    return tasks.register(task)


def _origin(task: Any) -> Any:
    """Return the function that was declared as the task, or the class that someone wrote for it."""
    function = getattr(task, "__wrapped__", None)
    return type(task) if function is None else inspect.unwrap(function)


def _same_home(old: Any, new: Any) -> bool:
    old_name, new_name = getattr(old, "__qualname__", None), getattr(new, "__qualname__", None)
    if old_name is None or _module_name(old) != _module_name(new):
        return False
    return old_name == new_name or ("<locals>" in old_name and "<locals>" in str(new_name))


def _place(task: Any) -> str:
    origin = _origin(task)
    name = f"{getattr(origin, '__module__', '?')}.{getattr(origin, '__qualname__', repr(origin))}"
    try:
        line = inspect.getsourcelines(origin)[1]
        return f"{name} ({inspect.getsourcefile(origin)}:{line})"
    except (OSError, TypeError):  # typed into a shell
        return name


def gen_task_name(function: Callable[..., Any], module: str | None = None) -> str:
    """Return the name of a task that is given none: that of its module, which may be overridden, and its own.

    A module that runs as a script has the name under which a worker would import it, where Python knows that.
    """
    return f"{_real_name(module) if module else _module_name(function)}.{function.__name__}"


def _module_name(function: Any) -> str:
    return _real_name(getattr(function, "__module__", None) or "__main__")


def _real_name(module: str) -> str:
    # __mp_main__ is the main module as a spawned child process sees it.
    if module not in ("__main__", "__mp_main__"):
        return module
    main = sys.modules.get(module) or sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m package.module
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return PurePath(file).stem if file else "__main__"


_discovering = Lock()
_discovered: tuple[Any, ...] | None = None


def autodiscover() -> None:
    """Import the ``tasks`` module of every installed app, and the modules named in ``IMPORTS``.

    Sends ``import_modules``. Done again, it does nothing until ``INSTALLED_APPS`` or ``IMPORTS`` has changed. With
    wrong settings ``IMPORTS`` is left out: Django must start, so that its checks can say what is wrong with them.

    Raises whatever a module raises when it is imported, an ``ImportError`` for one of ``IMPORTS`` that is not there.
    """
    global _discovered
    with _discovering:
        imports = () if check_settings() else settings.IMPORTS
        wanted = (*(app.name for app in apps.get_app_configs()), None, *imports)
        if wanted == _discovered:
            return
        signals.import_modules.emit(None)
        autodiscover_modules("tasks")
        for module in imports:
            import_module(module)
        _discovered = wanted
