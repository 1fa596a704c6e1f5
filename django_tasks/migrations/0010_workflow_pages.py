from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("django_tasks", "0009_bulk_operations"),
    ]

    operations = [
        migrations.CreateModel(
            name="Workflow",
            fields=[],
            options={
                "verbose_name": "workflow",
                "verbose_name_plural": "workflows",
                "proxy": True,
                "default_permissions": ("view",),
                "indexes": [],
                "constraints": [],
            },
            bases=("django_tasks.task",),
        ),
    ]
