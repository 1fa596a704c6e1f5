from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("django_tasks", "0010_workflow_pages"),
    ]

    operations = [
        migrations.CreateModel(
            name="TaskLog",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("task_id", models.UUIDField(verbose_name="task")),
                ("attempt", models.IntegerField(verbose_name="attempt")),
                ("count", models.IntegerField(verbose_name="records")),
                ("records", models.TextField(verbose_name="contents")),
            ],
            options={
                "verbose_name": "log of a task",
                "verbose_name_plural": "logs of tasks",
                "indexes": [models.Index(fields=["task_id", "attempt"], name="djt_log_task")],
            },
        ),
    ]
