"""Write the parts of the reference that repeat the code: settings, options, columns, moves, signals, exceptions.

``python -m tests.docs.tables`` writes them into the pages, between ``<!-- made of: … -->`` and ``<!-- end -->``;
``test_reference.py`` tells when a page is behind.
"""

from __future__ import annotations

import inspect
import os
import re
from argparse import Action, ArgumentParser, _SubParsersAction
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import django

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PART = re.compile(r"(?P<begin><!-- made of: (?P<name>[\w ]+) -->\n)(?P<body>.*?)(?P<end><!-- end -->)", re.DOTALL)


def settings() -> str:
    """Return one section for each setting."""
    from django_tasks.conf import Settings

    sections = []
    for name, setting in Settings.table().items():
        lines = [f"### `{name}`", "", setting.doc, ""]
        lines.append(f"- Default: {shown(setting.default)}")
        lines.append(f"- Allowed: {setting.kind.allowed}")
        if setting.unit:
            lines.append(f"- Unit: {setting.unit}")
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def shown(value: Any) -> str:
    """Return a default as code; times as they are written in settings."""
    if isinstance(value, dict):
        return "`{" + ", ".join(f"{key!r}: {shown(each).strip('`')}" for key, each in value.items()) + "}`"
    if isinstance(value, timedelta) and not value.seconds:
        return f"`timedelta(days={value.days})`"
    return f"`{value!r}`"


def options_of(command: str) -> Callable[[], str]:
    """Return what makes the table of a command's options."""
    return lambda: table(("option", "meaning"), map(option, own_actions(parser_of(command))))


def option(action: Action) -> tuple[str, str]:
    """Return an option, or an argument, as a row of a table."""
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    value = f"`{metavar(action)}`" if metavar(action) else ""
    return f"{names} {value}".strip(), help_of(action)


def verbs_of_tasks() -> str:
    """Return one section for each verb of ``manage.py tasks``."""
    [verbs] = [each for each in own_actions(parser_of("tasks")) if isinstance(each, _SubParsersAction)]
    sections = []
    for name, verb in verbs.choices.items():
        rows = [option(each) for each in own_actions(verb) if "--json" not in each.option_strings]
        options = f"\n\n{table(('option', 'meaning'), rows)}" if rows else ""
        sections.append(f"### `tasks {name}`\n\n{verb.description}{options}")
    return "\n\n".join(sections)


def parser_of(command: str) -> ArgumentParser:
    """Return the parser of a command of ours."""
    from django.core.management import load_command_class

    return load_command_class("django_tasks", command).create_parser("manage.py", command)


def own_actions(parser: ArgumentParser) -> Iterator[Action]:
    """Yield the options that are not Django's own."""
    from django.core.management.base import BaseCommand

    djangos = BaseCommand().create_parser("manage.py", "any")
    common = {name for action in djangos._actions for name in action.option_strings}
    for action in parser._actions:
        if not common & set(action.option_strings):
            yield action


def metavar(action: Action) -> str:
    """Return what stands for an option's value; ``""`` for a switch."""
    if action.nargs == 0:
        return ""
    if action.choices:
        return "|".join(str(choice) for choice in action.choices)
    return str(action.metavar or action.dest.upper()) + (" …" if action.nargs in ("+", "*") else "")


def help_of(action: Action) -> str:
    """Return an option's help as it is printed."""
    return (action.help or "").replace("%%", "%")


def columns_of(model: str) -> Callable[[], str]:
    """Return what makes the table of a model's columns."""

    def columns() -> str:
        from django.apps import apps

        found = apps.get_model("django_tasks", model)
        ours = [each for each in reversed(found.__mro__) if each.__module__ == found.__module__]
        notes = {name: note for each in ours for name, note in comments_in(each).items()}
        rows = []
        for field in found._meta.local_concrete_fields:
            kind = field.get_internal_type().removesuffix("Field")
            null = ", may be NULL" if field.null else ""
            meaning = notes.get(field.name) or f"{str(field.verbose_name).capitalize()}."
            rows.append((f"`{field.column}`", f"{kind}{null}", meaning))
        return table(("column", "type", "meaning"), rows)

    return columns


def moves() -> str:
    """Return which state may follow which."""
    from django_tasks import states

    def names(of: Iterable[str]) -> str:
        return ", ".join(f"`{state}`" for state in sorted(of))

    rows = [(f"`{state}`", names(targets)) for state, targets in states.MOVES.items() if targets]
    return table(("from", "to"), [*rows, (names(states.FINISHED), "nothing: these are final")])


def task_options() -> str:
    """Return the options of ``@shared_task`` with their defaults."""
    from django_tasks.task import Task

    rows = []
    for name, note in comments_in(Task).items():
        value = vars(Task).get(name)
        if not name.startswith("_") and name in vars(Task):
            rows.append((f"`{name}`", f"`{value!r}`", note))
    return table(("option", "default", "meaning"), rows)


def signals() -> str:
    """Return the signals with what each is sent with."""
    from django_tasks import signals as module

    notes = comments_in(module)
    rows = [
        (f"`{name}`", notes.get(name, "")) for name, each in vars(module).items() if isinstance(each, module.Signal)
    ]
    return table(("signal", "sent when; arguments"), rows)


def exceptions() -> str:
    """Return the tree of exceptions, and what each one means."""
    from django_tasks import exceptions as module

    tree = re.search(r"::\n\n(?P<tree>.*?)\n\n\S", str(module.__doc__), re.DOTALL)
    assert tree is not None
    rows = []
    for name in module.__all__:
        cls = getattr(module, name)
        if cls.__module__ == module.__name__:
            rows.append((f"`{name}`", summary(cls)))
    drawing = inspect.cleandoc(tree["tree"])
    return f"```text\n{drawing}\n```\n\n{table(('exception', 'meaning'), rows)}"


def summary(of: object) -> str:
    """Return the first paragraph of a docstring in one line of Markdown."""
    return markdown(inspect.getdoc(of).partition("\n\n")[0])  # type: ignore[union-attr]


def comments_in(of: type | ModuleType) -> dict[str, str]:
    """Return the ``#:`` comment above each name that a class or module sets."""
    found: dict[str, str] = {}
    said: list[str] = []
    for line in inspect.getsource(of).splitlines():
        text = line.strip()
        if text.startswith("#:"):
            said.append(text.removeprefix("#:").strip())
            continue
        if said and (setting := re.match(r"(\w+)(: [^=]+)? = ", text)):
            found[setting[1]] = markdown(" ".join(said))
        said = []
    return found


def markdown(text: str) -> str:
    """Return reStructuredText of comments and docstrings as one line of Markdown."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


#: Kinds of schedules that are rows.
SCHEDULES = ("Interval", "Crontab", "Cron", "Solar", "Clocked")

PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "options of runworker": options_of("runworker"),
    "options of runbeat": options_of("runbeat"),
    "verbs of tasks": verbs_of_tasks,
    "columns of Task": columns_of("Task"),
    "columns of TaskResult": columns_of("TaskResult"),
    "columns of Worker": columns_of("Worker"),
    "columns of Command": columns_of("Command"),
    "columns of Reply": columns_of("Reply"),
    "columns of Limit": columns_of("Limit"),
    "columns of PeriodicTask": columns_of("PeriodicTask"),
    "columns of PeriodicRun": columns_of("PeriodicRun"),
    "columns of Beat": columns_of("Beat"),
    **{f"columns of {kind}Schedule": columns_of(f"{kind}Schedule") for kind in SCHEDULES},
    "moves": moves,
    "task options": task_options,
    "signals": signals,
    "exceptions": exceptions,
}


def made(page: str) -> str:
    """Return a page's text with all its parts made anew. Raises ``KeyError`` for a part that nothing makes."""
    return PART.sub(lambda part: f"{part['begin']}{PARTS[part['name']]()}\n{part['end']}", page)


def main() -> None:
    """Write the parts into the pages."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    for page in sorted(REFERENCE.glob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = made(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"{page.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
