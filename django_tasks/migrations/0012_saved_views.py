from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("django_tasks", "0011_task_logs"),
    ]

    operations = [
        migrations.CreateModel(
            name="SavedView",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("user_id", models.CharField(max_length=64, verbose_name="person")),
                ("page", models.CharField(max_length=16, verbose_name="list")),
                ("name", models.CharField(max_length=64, verbose_name="name")),
                ("query", models.TextField(blank=True, default="", verbose_name="query")),
            ],
            options={
                "verbose_name": "saved view",
                "verbose_name_plural": "saved views",
                "ordering": ("name",),
                "constraints": [models.UniqueConstraint(fields=("user_id", "page", "name"), name="djt_view_name")],
            },
        ),
    ]
