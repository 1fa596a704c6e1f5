from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_tasks import signals
from django_tasks.exceptions import AlreadyRegistered, NotRegistered
from django_tasks.registry import TaskRegistry, autodiscover, gen_task_name


class FunctionTask:
    """As much of a task as the registry asks for."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.run = self.__wrapped__ = function
        self.name = name


class ClassTask:
    name = "app.class"

    def run(self) -> None: ...


class OtherClassTask(ClassTask):
    pass


def one() -> None: ...


def other() -> None: ...


@pytest.fixture
def registry() -> TaskRegistry:
    return TaskRegistry()


def test_a_task_is_found_by_its_name(registry: TaskRegistry) -> None:
    task = FunctionTask(one, "app.one")
    assert registry.register(task) is task
    assert registry["app.one"] is task
    assert registry.get("app.two") is None
    assert registry.regular() == {"app.one": task}


def test_a_missing_task_is_told_with_a_likely_one(registry: TaskRegistry) -> None:
    registry.register(FunctionTask(one, "app.tasks.add"))
    with pytest.raises(NotRegistered, match=r"'app.tasks.ad' is not registered here. Did you mean 'app.tasks.add'\?"):
        registry["app.tasks.ad"]
    with pytest.raises(KeyError, match="'zzz' is not registered here; is its module imported, or named in IMPORTS"):
        registry["zzz"]


def test_two_functions_cannot_have_one_name(registry: TaskRegistry) -> None:
    registry.register(FunctionTask(one, "app.one"))
    with pytest.raises(AlreadyRegistered) as caught:
        registry.register(FunctionTask(other, "app.one"))
    text = str(caught.value)
    for function in (one, other):
        assert f"{__name__}.{function.__name__} ({__file__}:{function.__code__.co_firstlineno})" in text
    assert registry["app.one"].run is one


def test_a_class_becomes_an_instance_and_keeps_its_name(registry: TaskRegistry) -> None:
    task = registry.register(ClassTask)
    assert isinstance(task, ClassTask)
    assert isinstance(registry.register(ClassTask()), ClassTask)
    with pytest.raises(AlreadyRegistered, match=r"registry.ClassTask .*registry.OtherClassTask"):
        registry.register(OtherClassTask)


@pytest.mark.parametrize("name", [None, "", 5])
def test_a_task_needs_a_name(registry: TaskRegistry, name: Any) -> None:
    with pytest.raises(ValueError, match="its name is"):
        registry.register(FunctionTask(one, name))


def test_a_reloaded_module_replaces_its_tasks(
    registry: TaskRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reloaded_tasks.py").write_text("def add(): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("reloaded_tasks")
    old = module.add
    registry.register(FunctionTask(old, "reloaded_tasks.add"))
    new = importlib.reload(module).add
    assert new is not old
    registry.register(FunctionTask(new, "reloaded_tasks.add"))
    assert registry["reloaded_tasks.add"].run is new
    del sys.modules["reloaded_tasks"]


def test_a_function_defined_inside_another_one_is_a_new_one_each_time(registry: TaskRegistry) -> None:
    def define() -> Callable[[], None]:
        def add() -> None: ...

        return add

    def define_elsewhere() -> Callable[[], None]:
        def add() -> None: ...

        return add

    for function in (define(), define(), define_elsewhere()):
        registry.register(FunctionTask(function, "app.add"))
        assert registry["app.add"].run is function


def test_unregistering_takes_a_task_or_a_name(registry: TaskRegistry) -> None:
    for given in ("app.one", FunctionTask(one, "app.one")):
        registry.register(FunctionTask(one, "app.one"))
        registry.unregister(given)
        assert "app.one" not in registry
        with pytest.raises(NotRegistered):
            registry.unregister(given)


def test_a_task_is_named_after_its_module_and_function() -> None:
    assert gen_task_name(one) == f"{__name__}.one"
    assert gen_task_name(one, "shop.tasks") == "shop.tasks.one"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["-m", "shop.jobs"], "shop.jobs.add"),
        (["-m", "shop"], "shop.add"),
        (["script.py"], "script.add"),
        (["-c", "from functions import *; exec(TEXT)"], "__main__.add"),
    ],
)
def test_a_module_that_runs_as_a_script_has_the_name_by_which_a_worker_imports_it(
    tmp_path: Path, arguments: list[str], name: str
) -> None:
    repository = str(Path(__file__).parents[2])
    text = (
        f"import sys; sys.path.append({repository!r})\nfrom django.conf import settings; settings.configure()\n"
        "from django_tasks.registry import gen_task_name\ndef add(): ...\nprint(gen_task_name(add))\n"
    )
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    for file in ("shop/jobs.py", "shop/__main__.py", "script.py"):
        (tmp_path / file).write_text(text)
    (tmp_path / "functions.py").write_text(f"TEXT = {text!r}\n")
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == name


@pytest.fixture
def extra_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "extra_app").mkdir()
    (tmp_path / "extra_app" / "__init__.py").touch()
    (tmp_path / "extra_app" / "tasks.py").touch()
    (tmp_path / "extra_jobs.py").touch()
    (tmp_path / "broken_jobs.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.startswith(("extra_", "broken_jobs"))]:
        del sys.modules[name]


@pytest.mark.usefixtures("extra_modules")
def test_the_tasks_of_apps_and_imports_are_found_once() -> None:
    heard: list[Any] = []

    @signals.import_modules.connect
    def hear(sender: Any, **kwargs: Any) -> None:
        heard.append(sender)

    with override_settings(INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "extra_app"]):
        autodiscover()
        assert "extra_app.tasks" in sys.modules
        assert "extra_jobs" not in sys.modules
        autodiscover()
        assert heard == [None]
        with override_settings(DJANGO_TASKS={"IMPORTS": ["extra_jobs"]}):
            autodiscover()
            autodiscover()
            assert "extra_jobs" in sys.modules
    assert heard == [None, None]


@pytest.mark.usefixtures("extra_modules")
def test_what_cannot_be_imported_is_an_error_each_time() -> None:
    for module in ("broken_jobs", "no_such_jobs"):
        with override_settings(DJANGO_TASKS={"IMPORTS": [module]}):
            for _ in range(2):
                with pytest.raises(ModuleNotFoundError, match="no_such"):
                    autodiscover()
