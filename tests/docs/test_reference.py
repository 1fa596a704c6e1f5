"""The reference names everything: what is made from the code is up to date, what is written by hand is complete."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
from argparse import _SubParsersAction
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from django.apps import apps

from django_tasks import checks, client, models, schedules, search, states, testing
from django_tasks.request import Context
from django_tasks.result import AsyncResult
from django_tasks.schedules.sun import EVENTS
from django_tasks.task import Task
from tests.docs.tables import REFERENCE, ROOT, made, own_actions, parser_of

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
#: A command line with options on any page, in any kind of block: ``runworker -c 4`` and what follows in its line.
RUNWORKER = re.compile(r"\brunworker(?P<line>( (?!-->)[^\s`\"\\|]+)*)")


@pytest.mark.parametrize("page", sorted(REFERENCE.glob("*.md")), ids=lambda page: page.name)
def test_what_is_made_from_the_code_is_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == made(text), "run: python -m tests.docs.tables"


def test_every_option_of_a_call_is_documented() -> None:
    assert not missing("calling.md", [*client.CALL_OPTIONS, *client.MEANINGLESS])


def test_every_attribute_of_a_result_is_documented() -> None:
    assert not missing("results.md", public(AsyncResult))


def test_every_schedule_is_documented_with_its_methods() -> None:
    assert not missing("schedules.md", [*schedules.__all__, *public(schedules.crontab), *EVENTS])


def test_every_field_of_the_request_is_documented() -> None:
    assert not missing("request.md", public(Context))


def test_every_method_of_a_task_is_documented() -> None:
    methods = {name for name in public(Task) if inspect.isfunction(vars(Task).get(name))}
    shown = "".join((REFERENCE / page).read_text(encoding="utf-8") for page in ("tasks.md", "calling.md", "request.md"))
    unsaid = {name for name in methods if not re.search(rf"\b{name}\(", shown)}
    assert not unsaid


def test_every_state_is_documented_and_drawn() -> None:
    assert not missing("states.md", states.MOVES)
    drawing = (REFERENCE / "states.md").read_text(encoding="utf-8").partition("```text")[2].partition("```")[0]
    assert {state for state in states.MOVES if state not in drawing} <= {states.WAITING, states.REJECTED}


def test_every_check_is_documented() -> None:
    source = inspect.getsource(checks)
    ids = {f"django_tasks.{found}" for found in re.findall(r"\b([EWI]\d{3})\b", source)}
    assert ids
    assert not missing("checks.md", ids)


@pytest.mark.parametrize("command", ["runworker", "runbeat", "tasks"])
def test_every_option_of_a_command_says_what_it_is_for(command: str) -> None:
    actions = list(own_actions(parser_of(command)))
    for verbs in actions:
        if isinstance(verbs, _SubParsersAction):
            actions = [action for verb in verbs.choices.values() for action in own_actions(verb)]
    assert actions
    assert not [action.dest for action in actions if not action.help]


def test_every_name_of_the_test_kit_is_documented_with_its_arguments() -> None:
    assert not missing("testing.md", testing.__all__)
    for name in testing.__all__:
        each = getattr(testing, name)
        wanted: Iterable[str] = inspect.signature(each).parameters
        if name[0].isupper():
            wanted = [one.name for one in dataclasses.fields(each)] if dataclasses.is_dataclass(each) else public(each)
        assert not missing("testing.md", wanted), name


def test_every_key_of_a_search_is_documented_with_where_it_is_for() -> None:
    page = (REFERENCE / "admin.md").read_text(encoding="utf-8").partition("## Search")[2].partition("\n## ")[0]
    where: dict[str, str] = {}
    for keys, places in re.findall(r"^\| ((?:`[\w.]+`(?:, )?)+) \|.*\| ([a-z; ]+) \|$", page, re.MULTILINE):
        found = re.findall(r"`([\w.]+)`", keys)
        where.update(zip(found, places.split("; ") * len(found), strict=False))
    assert where == {
        key: "both" if key in search.keys(models.Task) else "results" for key in search.keys(models.TaskResult)
    }


def test_every_permission_is_documented() -> None:
    models = [model for model in apps.get_app_config("django_tasks").get_models() if model._meta.permissions]
    assert not missing("admin.md", [codename for model in models for codename, _ in model._meta.permissions])


def test_every_promise_is_that_of_a_test() -> None:
    page = (DOCS / "explanation" / "delivery.md").read_text(encoding="utf-8")
    promised = set(re.findall(r"^\| (R\d+) \|", page, re.MULTILINE))
    assert promised
    lines = [line for file in (ROOT / "tests").rglob("*.py") for line in file.read_text(encoding="utf-8").splitlines()]
    assert promised <= {number for line in lines if '"""' in line for number in re.findall(r"\bR\d+\b", line)}


def test_links_of_the_readme_lead_to_files() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_of_runworker_on_a_page_exist(page: Path) -> None:
    known = {name for action in own_actions(parser_of("runworker")) for name in action.option_strings}
    for found in RUNWORKER.finditer(page.read_text(encoding="utf-8")):
        given = {word.partition("=")[0] for word in shlex.split(found["line"]) if word.startswith("-")}
        assert given <= known, found[0]


def public(cls: type) -> Iterator[str]:
    """Yield the names that a class has for all to use."""
    return (name for name in dir(cls) if not name.startswith("_"))


def missing(page: str, names: Iterable[str]) -> list[str]:
    """Return the names which a page of the reference does not show as code."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"`([^`\n]+)`", text))
    return sorted(name for name in names if not re.search(rf"\b{re.escape(name)}\b", code))
