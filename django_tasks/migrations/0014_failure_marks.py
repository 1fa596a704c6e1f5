from __future__ import annotations

from django.db import migrations, models

import django_tasks.fields


class Migration(migrations.Migration):
    dependencies = [
        ("django_tasks", "0013_pages_by_state"),
    ]

    operations = [
        migrations.CreateModel(
            name="FailureMark",
            fields=[
                (
                    "key",
                    django_tasks.fields.NameField(max_length=40, primary_key=True, serialize=False, verbose_name="key"),
                ),
                ("name", django_tasks.fields.NameField(max_length=255, verbose_name="task")),
                ("exception", models.CharField(blank=True, default="", max_length=255, verbose_name="exception")),
                ("place", models.CharField(blank=True, default="", max_length=255, verbose_name="place")),
                (
                    "acknowledged_at",
                    django_tasks.fields.UTCDateTimeField(blank=True, null=True, verbose_name="acknowledged"),
                ),
                (
                    "acknowledged_by",
                    models.CharField(blank=True, default="", max_length=255, verbose_name="acknowledged by"),
                ),
                (
                    "muted_until",
                    django_tasks.fields.UTCDateTimeField(blank=True, null=True, verbose_name="muted until"),
                ),
                ("muted_by", models.CharField(blank=True, default="", max_length=255, verbose_name="muted by")),
            ],
            options={
                "verbose_name": "group of failures",
                "verbose_name_plural": "groups of failures",
                "permissions": (("acknowledge_failure", "Can acknowledge and mute failures"),),
                "default_permissions": (),
            },
        ),
    ]
