"""The migrations make what the models say, on every database, and take it away again."""

from __future__ import annotations

import warnings
from io import StringIO

import pytest
from django.apps import apps
from django.core.management import call_command
from django.test.utils import CaptureQueriesContext

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
        if database.vendor == "mysql":
            wanted -= {"djt_task_aside"}  # djt_task_unroutable has all states there
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
    names = ("claim", "worker", "unroutable", "aside", "limited", "unique")
    for name in (f"djt_task_{one}" for one in names):
        assert " WHERE " in definitions[name]


def test_the_migrations_go_back_to_nothing_and_forth_again(database: TestDatabase) -> None:
    before = tables(database)
    call_command("migrate", "django_tasks", "zero", verbosity=0, interactive=False)
    assert tables(database) == {}
    call_command("migrate", "django_tasks", verbosity=0, interactive=False)
    assert tables(database) == before


@pytest.mark.databases("postgresql")
def test_an_index_that_was_broken_off_is_made_anew_beside_writers(database: TestDatabase) -> None:
    """What CREATE INDEX CONCURRENTLY leaves behind then has the name, but serves nobody."""
    call_command("migrate", "django_tasks", "0012", verbosity=0, interactive=False)
    with database.connection.cursor() as cursor:
        cursor.execute("CREATE INDEX djt_task_aside ON django_tasks_task (state, id)")
        cursor.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'djt_task_aside'::regclass")
    with CaptureQueriesContext(database.connection) as queries:
        call_command("migrate", "django_tasks", verbosity=0, interactive=False)
    assert any("CREATE INDEX CONCURRENTLY" in query["sql"] for query in queries)
    with database.connection.cursor() as cursor:
        cursor.execute(
            "SELECT indisvalid, indpred IS NOT NULL FROM pg_index WHERE indexrelid = 'djt_task_aside'::regclass"
        )
        assert cursor.fetchone() == (True, True)


def test_the_database_has_nothing_to_complain_about(database: TestDatabase) -> None:
    """Django warns of conditional indexes where a database has none; ours are made for it."""
    told = StringIO()
    call_command("check", "django_tasks", databases=[database.alias], fail_level="WARNING", stdout=told, stderr=told)
    assert "no issues" in told.getvalue()
