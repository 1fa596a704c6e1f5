"""What tells a worker to end the running attempt of a revoked task."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("django_tasks", "0004_control"),
    ]

    operations = [
        migrations.AddField(
            model_name="task",
            name="terminate",
            field=models.CharField(blank=True, max_length=16, null=True, verbose_name="terminate"),
        ),
    ]
