"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.databases import TestDatabase

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ["-p", "django_tasks.testing.plugin"]
ONLY_SQLITE = pytest.mark.databases("sqlite")
TESTS = """
import os
import pytest
from django.contrib.auth.models import Group
from django_tasks.models import Task
from django_tasks.testing import assert_enqueued
from tests.testing import jobs

@pytest.mark.django_db
def test_captured(captured_tasks, run_tasks):
    jobs.mail.delay("ada")
    assert [one.name for one in captured_tasks] == [jobs.mail.name]
    assert_enqueued(jobs.mail)
    assert run_tasks().counts == {"SUCCESS": 1}
    assert jobs.log == ["mail to ada"]

def test_eager(eager_tasks):
    assert jobs.price.delay(2).get() == 2
    with pytest.raises(jobs.Shortage):
        jobs.fail.delay("flour")

@pytest.mark.django_db
def test_not_eager_any_more():
    assert Task.objects.count() == 0
    assert jobs.price.delay(2).state == "PENDING"

@pytest.mark.tasks_worker(imports=["tests.testing.jobs"], pool="solo")
def test_worker(tasks_worker):
    Group.objects.create(name="committed")
    found = jobs.where.delay().get(timeout=60)
    assert found["pid"] == tasks_worker.pid != os.getpid()
    assert jobs.send_email.delay().get(timeout=60) is True  # into the outbox of that process, not away

@pytest.mark.django_db
def test_the_worker_has_left_nothing():
    assert (Task.objects.count(), Group.objects.count()) == (0, 0)

@pytest.mark.django_db
def test_worker_in_a_transaction(request):
    with pytest.raises(RuntimeError, match="within a transaction"):
        request.getfixturevalue("tasks_worker")
"""


def run(directory: Path, *arguments: str, environ: dict[str, str]) -> str:
    """Run pytest with the plugin and those named in ``arguments``, and no others; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-W", "error", *PLUGIN, *arguments, "."],
        cwd=directory,
        env={**environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_fixtures_work_with_pytest_django(database: TestDatabase, tmp_path: Path) -> None:
    directory = tmp_path / "site"
    directory.mkdir()
    (directory / "pytest.ini").write_text("[pytest]\n")
    (directory / "test_site.py").write_text(TESTS)
    (directory / "site_settings.py").write_text(
        "from tests.settings import *\n"
        'if DATABASES["default"]["ENGINE"].endswith("sqlite3"):\n'
        f'    DATABASES["default"]["TEST"] = {{"NAME": {str(directory / "test.sqlite3")!r}}}\n'
    )
    environ = {**database.environ(), "DJANGO_SETTINGS_MODULE": "site_settings"}
    assert "6 passed" in run(directory, "-p", "django", environ=environ)


def test_it_imports_nothing_of_django_where_no_test_uses_it(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_plain.py").write_text(
        "import sys\n"
        "def test_plain(request):\n"
        "    assert request.config.pluginmanager.hasplugin('django_tasks.testing.plugin')\n"
        "    assert not [name for name in sys.modules if name.split('.')[0] == 'django']\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    assert "1 passed" in run(tmp_path, environ=environ)
    assert "tasks_worker(queues=()" in run(tmp_path, "--markers", environ=environ)


@ONLY_SQLITE
def test_its_fixtures_work_without_pytest_django(database: TestDatabase, tmp_path: Path) -> None:
    directory = tmp_path / "site"
    directory.mkdir()
    (directory / "pytest.ini").write_text("[pytest]\n")
    (directory / "conftest.py").write_text("import django\ndjango.setup()\n")
    (directory / "test_site.py").write_text(
        "import pytest\n"
        "from tests.testing import jobs\n"
        "@pytest.mark.tasks_worker(imports=['tests.testing.jobs'])\n"
        "def test_worker(tasks_worker, captured_tasks):\n"
        "    assert jobs.price.delay(3).get(timeout=60) == 3\n"
        "    assert len(captured_tasks) == 1\n"
        "def test_eager(eager_tasks):\n"
        "    assert jobs.price.delay(2).get() == 2\n"
    )
    assert "2 passed" in run(directory, environ=database.environ())
