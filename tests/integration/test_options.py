"""The options of ``runworker``, each in a real process."""

from __future__ import annotations

import os
import socket

import pytest

from django_tasks import send_task, states
from django_tasks.models import Worker as WorkerRow
from tests.app.tasks import noop, whoami
from tests.eventually import eventually
from tests.integration.jobs import kill_own_process, say, wait_at_gate, work
from tests.integration.site import Site

pytestmark = pytest.mark.databases("sqlite")


def test_burst_runs_everything_that_is_due_and_ends(site: Site) -> None:
    """Exit code 0; what is due later stays."""
    sent = work.enqueue_many([(0.01,)] * 100)
    later = work.apply_async(countdown=3600)
    assert site.launch("--burst").wait() == 0
    assert {result.state for result in sent} == {states.SUCCESS}
    assert later.state == states.PENDING
    assert site.launch("--burst").wait() == 0


def test_burst_waits_for_what_a_dead_child_gives_back(site: Site) -> None:
    """R1: a child dies of the last task of all; its next attempts are part of the burst."""
    poison = kill_own_process.delay()
    assert site.launch("--burst").wait() == 0
    assert poison.state == states.FAILURE
    assert len(site.journal("start")) == 3


def test_a_worker_consumes_only_the_queues_that_it_is_told(site: Site) -> None:
    """``-Q``, with commas or without, and ``-X``."""
    sent = {queue: work.apply_async(queue=queue) for queue in ("mail", "images", "reports", "default")}
    assert site.launch("--burst", "-Q", "mail,images").wait() == 0
    assert [queue for queue, result in sent.items() if result.ready()] == ["mail", "images"]
    assert site.launch("--burst", "-X", "default").wait() == 0
    assert [queue for queue, result in sent.items() if not result.ready()] == ["default"]
    sent["images"] = work.apply_async(queue="images")
    assert site.launch("--burst", "-Q", "default", "images", "-X", "images").wait() == 0
    assert [queue for queue, result in sent.items() if not result.ready()] == ["images"]


def test_the_node_name_is_expanded_and_told_to_tasks_and_results(site: Site) -> None:
    """``-n mail-%p@%h``."""
    worker = site.start("-n", "mail-%p@%h")
    name = f"mail-{worker.pid}@{socket.gethostname()}"
    result = whoami.delay()
    assert result.get(timeout=60)["worker"] == name
    assert result.worker == name
    assert WorkerRow.objects.get().name == name


def test_the_banner_tells_what_the_worker_is(site: Site) -> None:
    """Version, name, database, queues, processes, tasks."""
    worker = site.start("-n", "teller", "-Q", "mail", "default", "-X", "images")
    said = worker.said()
    for words in (
        "django-workbeat",
        "teller",
        f"sqlite 'default' at {site.directory / 'db.sqlite3'}",
        "mail,default -images",
        "2 (prefork)",
        "tests.app.tasks.add",
        "tests.integration.jobs.work",
    ):
        assert words in said
    assert ("runs as root" in said) == (os.geteuid() == 0)


def test_the_pid_file_holds_a_place_for_one_worker(site: Site) -> None:
    """A second start is refused with exit code 73; a file that a dead worker left is taken over."""
    path = site.directory / "worker-%n.pid"
    file = site.directory / "worker-first.pid"
    options = ("--pidfile", str(path), "-n", "first")
    worker = site.start(*options)
    assert file.read_text() == f"{worker.pid}\n"
    second = site.launch(*options)
    assert second.wait() == 73
    assert f"it names the process {worker.pid}, which is running" in second.said()
    assert worker.stop() == 0
    assert not file.exists()
    worker = site.start(*options)
    worker.kill_tree()
    assert file.exists()
    assert site.start(*options).stop() == 0
    assert not file.exists()


def test_the_log_goes_to_a_file_and_names_the_task(site: Site) -> None:
    """``--logfile`` with the worker's name in it; only what a task says itself bears its name and id."""
    worker = site.start("--logfile", str(site.directory / "%n.log"), "-n", "writer@%h")
    result = say.delay("kumquat")
    assert result.get(timeout=60) is None
    log = site.directory / "writer.log"
    [line] = eventually(lambda: [line for line in log.read_text().splitlines() if "kumquat" in line])
    assert line.endswith(f"tests.integration.jobs.say[{result.id}]: The word is kumquat")
    assert "INFO/" in line
    [ready] = [line for line in log.read_text().splitlines() if line.endswith("is ready.")]
    assert "???" not in ready
    assert "kumquat" not in worker.said()


def test_the_log_level_is_that_of_the_option(site: Site) -> None:
    """``--loglevel`` in either case; what lies below it is not written."""
    worker = site.start("--loglevel", "warning")
    say.delay("kumquat").get(timeout=60)
    assert worker.stop() == 0
    assert "is ready" not in worker.said()
    assert "kumquat" not in worker.said()


def test_logging_of_the_project_reaches_the_children_with_the_task_s_id(site: Site) -> None:
    """Django's ``LOGGING`` rules; a filter gives each record its task."""
    (site.directory / "own_logging.py").write_text(
        "from tests.settings import *\n"
        "LOGGING = {\n"
        "    'version': 1,\n"
        "    'filters': {'task': {'()': 'django_tasks.utils.log.TaskContextFilter'}},\n"
        "    'formatters': {'own': {'format': 'OWN {task_id} {task_name} {message}', 'style': '{'}},\n"
        "    'handlers': {'own': {'class': 'logging.StreamHandler', 'filters': ['task'], 'formatter': 'own'}},\n"
        "    'loggers': {'django_tasks': {'handlers': ['own'], 'level': 'INFO', 'propagate': False}},\n"
        "}\n"
    )
    worker = site.start(environ={"DJANGO_SETTINGS_MODULE": "own_logging"})
    result = say.delay("kumquat", "medlar")
    assert result.get(timeout=60) is None
    assert worker.stop() == 0
    lines = worker.said().splitlines()
    for word in ("kumquat", "medlar"):
        assert lines.count(f"OWN {result.id} tests.integration.jobs.say The word is {word}") == 1
    assert any(line.startswith("OWN ??? ???") and "is ready" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--loglevel", "LOUD"], "--loglevel 'LOUD': allowed are DEBUG, INFO"),
        (["--logfile", "/nowhere/at/all"], "--logfile /nowhere/at/all: "),
    ],
)
def test_a_bad_option_ends_the_start_with_one_line(site: Site, options: list[str], words: str) -> None:
    """R31: exit code 1 and what is allowed; no traceback."""
    worker = site.launch(*options)
    assert worker.wait() == 1
    assert words in worker.said()
    assert "Traceback" not in worker.said()


def test_a_bad_setting_ends_the_start_and_is_named(site: Site) -> None:
    """R31: exit code 1, what was given, what is allowed, and what was meant."""
    worker = site.launch(WORKER_LEASE=-1, WORKER_CONCURENCY=2)
    assert worker.wait() == 1
    assert "DJANGO_TASKS['WORKER_LEASE'] is -1; allowed: a number of seconds" in worker.said()
    assert "WORKER_CONCURENCY" in worker.said()
    assert "WORKER_CONCURRENCY" in worker.said()
    assert "Traceback" not in worker.said()


def test_missing_tables_end_the_start_with_the_command_that_makes_them(site: Site) -> None:
    """R31: exit code 2."""
    worker = site.launch(environ={"DATABASE_URL": f"sqlite:///{site.directory / 'empty.sqlite3'}"})
    assert worker.wait() == 2
    assert "Run: manage.py migrate django_tasks" in worker.said()


def test_a_project_without_tasks_is_told_how_to_declare_one(site: Site) -> None:
    """R31: exit code 2."""
    (site.directory / "no_tasks.py").write_text(
        "from tests.settings import *\nINSTALLED_APPS = [app for app in INSTALLED_APPS if app != 'tests.app']\n"
    )
    worker = site.launch(environ={"DJANGO_SETTINGS_MODULE": "no_tasks"}, IMPORTS=[])
    assert worker.wait() == 2
    assert "@shared_task" in worker.said()


@pytest.mark.databases("postgresql", private=True)
def test_a_database_that_is_not_there_yet_is_waited_for(site: Site) -> None:
    """R31: unreachable is no configuration error: it is told, with what to do, and tried again."""
    server = site.database.server
    assert server is not None
    result = noop.delay()
    server.stop()
    worker = site.launch()
    worker.wait_until_it_says("Start the database or correct DATABASES; trying again")
    server.start()
    site.wait_for(lambda: result.state == states.SUCCESS)
    assert worker.stop() == 0


@pytest.mark.databases("postgresql", private=True)
def test_a_worker_that_waits_for_its_database_ends_when_told(site: Site) -> None:
    """R17: exit code 0 at once, whatever it waits for."""
    server = site.database.server
    assert server is not None
    server.stop()
    worker = site.launch()
    worker.wait_until_it_says("trying again")
    assert worker.stop() == 0


def test_autoreload_lets_running_tasks_finish_and_starts_anew_with_the_changed_code(site: Site) -> None:
    """``--autoreload`` outlives a change that does not even compile, and SIGTERM ends it with its worker."""
    module = site.directory / "reloaded_jobs.py"

    def write(body: str) -> None:
        module.write_text(f"from django_tasks import shared_task\n@shared_task(name='version')\n{body}\n")

    write("def version():\n    return 1")
    imports = ["tests.integration.jobs", "reloaded_jobs"]
    worker = site.launch("--autoreload", IMPORTS=imports, WORKER_HEARTBEAT_INTERVAL=0.2)
    assert send_task("version").get(timeout=60) == 1
    running = wait_at_gate.delay(str(site.gates))
    start = site.wait_for_start(running)
    write("def version(:\n    return 2")
    eventually(lambda: WorkerRow.objects.filter(draining=True).exists(), timeout=60)
    site.open_gate(start)
    worker.wait_until_it_says("SyntaxError")
    assert running.state == states.SUCCESS
    write("def version():\n    return 3")
    assert send_task("version").get(timeout=60) == 3
    assert len(site.journal("start")) == 1
    assert worker.stop() == 0
    assert not worker.orphans()
    assert WorkerRow.objects.filter(stopped_at=None).count() == 0
