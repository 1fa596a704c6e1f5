"""PostgreSQL: how often the three tables are cleaned. The to-do list turns over completely all the time, whatever its size."""

from __future__ import annotations

from typing import Any

from django.db import migrations

SETTINGS: dict[str, dict[str, float]] = {
    # A fixed number of dead rows, at full speed: a share of the table would be too late for a long backlog.
    "django_tasks_task": {
        "autovacuum_vacuum_scale_factor": 0,
        "autovacuum_vacuum_threshold": 5000,
        "autovacuum_analyze_scale_factor": 0,
        "autovacuum_analyze_threshold": 50000,
        "autovacuum_vacuum_cost_delay": 0,
    },
    # Appended to, and pruned at its old end.
    "django_tasks_taskresult": {"autovacuum_vacuum_insert_scale_factor": 0.05, "autovacuum_vacuum_scale_factor": 0.05},
    # Heartbeats stay within their page.
    "django_tasks_worker": {"fillfactor": 50},
}


def set_storage(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        for table, values in SETTINGS.items():
            pairs = ", ".join(f"{name} = {value}" for name, value in values.items())
            schema_editor.execute(f"ALTER TABLE {table} SET ({pairs})")


def reset_storage(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        for table, values in SETTINGS.items():
            schema_editor.execute(f"ALTER TABLE {table} RESET ({', '.join(values)})")


class Migration(migrations.Migration):
    dependencies = (("django_tasks", "0001_initial"),)

    operations = (migrations.RunPython(set_storage, reset_storage),)
