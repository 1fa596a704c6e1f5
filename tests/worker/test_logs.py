"""Logging of a worker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_tasks import signals
from django_tasks.context import current_request
from django_tasks.request import Context
from django_tasks.utils.log import get_task_logger
from django_tasks.worker.logs import ROOT, configure


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    logger = logging.getLogger(ROOT)
    level, handlers = logger.level, list(logger.handlers)
    yield
    for handler in set(logger.handlers) - set(handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)


@pytest.fixture
def task() -> Iterator[Context]:
    """Run the test as if it were a task."""
    request = Context(id="an-id", task="some.task")
    token = current_request.set(request)
    yield request
    current_request.reset(token)


def test_a_file_gets_what_is_said_and_names_the_task_that_said_it(tmp_path: Path, task: Context) -> None:
    configure("INFO", str(tmp_path / "log"))
    get_task_logger("some.module").info("of a task")
    logging.getLogger("django_tasks.executor").info("Task some.task[an-id] done")
    logging.getLogger("django_tasks.worker").debug("too quiet")
    [own, executor] = (tmp_path / "log").read_text().splitlines()
    assert own.endswith("] some.task[an-id]: of a task")
    assert executor.endswith("] Task some.task[an-id] done"), "it names the task itself"


def test_a_line_of_the_worker_names_no_task(tmp_path: Path) -> None:
    configure("INFO", str(tmp_path / "log"))
    logging.getLogger("django_tasks.worker").info("is ready")
    [line] = (tmp_path / "log").read_text().splitlines()
    assert line.endswith("] is ready")
    assert "???" not in line


def test_a_handler_of_the_project_is_enough() -> None:
    logger = logging.getLogger(ROOT)
    own = logging.NullHandler()
    logger.addHandler(own)
    try:
        configure("WARNING", None)
        assert logger.handlers.count(own) == 1
        assert not [each for each in logger.handlers if isinstance(each, logging.StreamHandler)]
        assert logger.level == logging.WARNING
    finally:
        logger.removeHandler(own)


def test_a_receiver_of_setup_logging_takes_over_completely(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []

    def take_over(**named: Any) -> None:
        heard.append(named)

    signals.setup_logging.connect(take_over)
    try:
        configure("ERROR", str(tmp_path / "log"))
    finally:
        signals.setup_logging.disconnect(take_over)
    assert [(named["loglevel"], named["logfile"]) for named in heard] == [("ERROR", str(tmp_path / "log"))]
    assert not (tmp_path / "log").exists()


def test_receivers_may_add_to_what_was_set_up(tmp_path: Path) -> None:
    heard: dict[str, logging.Logger] = {}

    def of_all(logger: logging.Logger, **named: Any) -> None:
        heard["all"] = logger

    def of_tasks(logger: logging.Logger, **named: Any) -> None:
        heard["tasks"] = logger

    signals.after_setup_logger.connect(of_all)
    signals.after_setup_task_logger.connect(of_tasks)
    try:
        configure("INFO", str(tmp_path / "log"))
    finally:
        signals.after_setup_logger.disconnect(of_all)
        signals.after_setup_task_logger.disconnect(of_tasks)
    assert {name: logger.name for name, logger in heard.items()} == {
        "all": "django_tasks",
        "tasks": "django_tasks.task",
    }
