"""The migrations make what the models say, on every database, and take it away again."""

from __future__ import annotations

import warnings
from io import StringIO

import pytest
from django.apps import apps
from django.core.management import call_command

from tests.databases import TestDatabase

MODELS = tuple(model for model in apps.get_app_config("django_tasks").get_models() if not model._meta.proxy)


def tables(database: TestDatabase) -> dict[str, tuple[list[str], dict[str, list[str]]]]:
    """Return the app's tables: their columns and, by name, the columns of their indexes and constraints."""
    found = {}
    with database.connection.cursor() as cursor:
        look = database.connection.introspection
        for name in look.table_names(cursor):
            if name.startswith("django_tasks_"):
                columns = [column.name for column in look.get_table_description(cursor, name)]
                constraints = look.get_constraints(cursor, name)
                named = {key: value["columns"] for key, value in constraints.items() if key.startswith("djt_")}
                found[name] = (columns, named)
    return found


def test_the_models_have_no_changes_without_a_migration(database: TestDatabase) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call_command("makemigrations", "django_tasks", check=True, dry_run=True, verbosity=0)


def test_the_tables_have_what_the_models_say(database: TestDatabase) -> None:
    found = tables(database)
    assert set(found) == {model._meta.db_table for model in MODELS}
    for model in MODELS:
        columns, named = found[model._meta.db_table]
        assert set(columns) == {field.column for field in model._meta.fields}
        wanted = {one.name for one in [*model._meta.indexes, *model._meta.constraints]}
        assert set(named) == wanted


def test_the_claim_index_ends_in_the_order_of_the_claim(database: TestDatabase) -> None:
    _, named = tables(database)["django_tasks_task"]
    assert named["djt_task_claim"] == ["queue", "priority", "due_at"]
    with database.connection.cursor() as cursor:
        constraints = database.connection.introspection.get_constraints(cursor, "django_tasks_task")
    assert constraints["djt_task_claim"]["orders"] == ["ASC", "DESC", "ASC"]


@pytest.mark.databases("sqlite", "postgresql")
def test_the_indexes_of_the_to_do_list_are_partial(database: TestDatabase) -> None:
    sql = {
        "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index'",
        "postgresql": "SELECT indexname, indexdef FROM pg_indexes",
    }[database.kind]
    with database.connection.cursor() as cursor:
        cursor.execute(sql)
        definitions = dict(cursor.fetchall())
    for name in ("djt_task_claim", "djt_task_worker", "djt_task_unroutable", "djt_task_limited", "djt_task_unique"):
        assert " WHERE " in definitions[name]


def test_the_migrations_go_back_to_nothing_and_forth_again(database: TestDatabase) -> None:
    before = tables(database)
    call_command("migrate", "django_tasks", "zero", verbosity=0, interactive=False)
    assert tables(database) == {}
    call_command("migrate", "django_tasks", verbosity=0, interactive=False)
    assert tables(database) == before


def test_the_database_has_nothing_to_complain_about(database: TestDatabase) -> None:
    """Django warns of conditional indexes where a database has none; ours are made for it."""
    told = StringIO()
    call_command("check", "django_tasks", databases=[database.alias], fail_level="WARNING", stdout=told, stderr=told)
    assert "no issues" in told.getvalue()
