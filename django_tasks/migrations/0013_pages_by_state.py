"""The index for the admin's pages of what waits for others or for its next attempt, made while the site is at work."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models

import django_tasks.fields


class AddIndexBesideWriters(migrations.AddIndex):
    """Adds an index without holding up those who write, where the database can: PostgreSQL."""

    atomic = False

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        connection = schema_editor.connection
        if connection.vendor != "postgresql" or connection.in_atomic_block:
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(connection.alias, model):
            # One that was broken off has left an index behind that serves nobody.
            name = schema_editor.quote_name(self.index.name)
            schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            schema_editor.add_index(model, self.index, concurrently=True)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("django_tasks", "0012_saved_views"),
    ]

    operations = [
        AddIndexBesideWriters(
            model_name="task",
            index=django_tasks.fields.PartialIndex(
                fields=["state", "id"],
                instead=None,
                name="djt_task_aside",
                where=models.Q(("state__in", ["RETRY", "WAITING"])),
            ),
        ),
    ]
