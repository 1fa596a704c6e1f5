"""Use the installed package in a new project: run by a Python which has nothing but the wheel and its needs.

Makes a project in an empty directory below the current one, then sends a task and lets a worker run it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS = """
SECRET_KEY = "for the smoke test only"
INSTALLED_APPS = ["django.contrib.contenttypes", "django_tasks", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
USE_TZ = True
"""
TASKS = """
from django_tasks import shared_task

@shared_task
def add(x, y):
    return x + y
"""
SEND = """
import django
django.setup()
from shop.tasks import add
print(add.delay(2, 3).id)
"""
READ = """
import sys
import django
django.setup()
from django_tasks import AsyncResult
result = AsyncResult(sys.argv[1])
assert result.state == "SUCCESS", result.state
assert result.get(timeout=5) == 5, result.get(timeout=5)
"""


def main() -> None:
    """Run the steps; ends with the exception of the first that fails."""
    directory = Path(tempfile.mkdtemp(prefix="smoke-", dir="."))
    (directory / "shop").mkdir()
    (directory / "shop" / "__init__.py").touch()
    (directory / "shop" / "tasks.py").write_text(TASKS)
    (directory / "settings.py").write_text(SETTINGS)

    def python(*arguments: str) -> str:
        environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": "."}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=directory, env=environ, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.strip()

    python("-m", "django", "check")
    python("-m", "django", "migrate", "--verbosity", "0")
    python("-m", "django", "makemigrations", "--check", "--dry-run")
    task_id = python("-c", SEND)
    python("-m", "django", "runworker", "--burst")
    python("-c", READ, task_id)
    home = python("-c", "import django_tasks; print(django_tasks.__file__)")
    print(f"ok: sent, run and read by {home}")


if __name__ == "__main__":
    main()
