from __future__ import annotations

from django.db import migrations, models

import django_tasks.fields


class Migration(migrations.Migration):
    dependencies = [
        ("django_tasks", "0014_failure_marks"),
    ]

    operations = [
        migrations.CreateModel(
            name="TaskNames",
            fields=[
                (
                    "id",
                    django_tasks.fields.NameField(max_length=32, primary_key=True, serialize=False, verbose_name="id"),
                ),
                ("names", models.TextField(verbose_name="names")),
                ("told_at", django_tasks.fields.UTCDateTimeField(verbose_name="told")),
            ],
            options={
                "verbose_name": "names of tasks",
                "verbose_name_plural": "names of tasks",
                "default_permissions": (),
            },
        ),
        migrations.AddField(
            model_name="worker",
            name="task_names",
            field=django_tasks.fields.NameField(blank=True, max_length=32, null=True, verbose_name="task names"),
        ),
    ]
