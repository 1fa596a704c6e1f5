from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks.context import current_request, current_task_ids
from django_tasks.utils.log import (
    ColorFormatter,
    LoggingProxy,
    TaskContextFilter,
    TaskFormatter,
    add_task_to_handlers,
    escape,
    get_logger,
    get_task_logger,
    task_logger,
)

FORMAT = "%(levelname)s [%(task_name)s(%(task_id)s)] %(message)s"


@pytest.fixture
def running() -> Iterator[None]:
    token = current_request.set(SimpleNamespace(id="id-1", task="app.tasks.add"))
    yield
    current_request.reset(token)


@pytest.fixture
def handler() -> Iterator[logging.StreamHandler[io.StringIO]]:
    """Give a handler on the logger ``tests.log``, which passes nothing on."""
    logger = logging.getLogger("tests.log")
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(logging.Formatter(FORMAT))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield handler
    logger.removeHandler(handler)
    logger.propagate = True


def written(handler: logging.StreamHandler[io.StringIO]) -> str:
    return handler.stream.getvalue()


def test_the_running_task_is_known_where_it_runs_and_nowhere_else(running: None) -> None:
    elsewhere: list[object] = []
    thread = threading.Thread(target=lambda: elsewhere.append(current_task_ids()))
    thread.start()
    thread.join()
    assert current_task_ids() == ("id-1", "app.tasks.add")
    assert elsewhere == [None]


def test_a_task_called_as_a_function_has_no_id() -> None:
    token = current_request.set(SimpleNamespace(id=None, task="app.tasks.add"))
    assert current_task_ids() is None
    current_request.reset(token)


def test_a_task_logger_passes_records_to_the_handlers_of_all_tasks(caplog: pytest.LogCaptureFixture) -> None:
    logger = get_task_logger("tests.some.tasks")
    assert logger.name == "tests.some.tasks"
    assert logger.parent is task_logger
    assert get_task_logger("tests.some.tasks") is logger
    assert get_task_logger("django_tasks.task.inner").parent is task_logger
    with caplog.at_level(logging.INFO, "django_tasks.task"):
        logger.info("hello")
    assert caplog.messages == ["hello"]


@pytest.mark.parametrize("name", ["django_tasks", "django_tasks.task"])
def test_the_parents_are_not_for_others(name: str) -> None:
    with pytest.raises(RuntimeError, match=f"Logger name '{name}' is reserved!"):
        get_task_logger(name)


def test_any_logger_may_be_put_below_ours() -> None:
    assert get_logger("tests_of_logging").parent is logging.getLogger("django_tasks")
    assert get_logger("django_tasks") is logging.getLogger("django_tasks")
    assert get_logger("django_tasks.worker.pool").parent is logging.getLogger("django_tasks.worker")


def test_every_record_tells_its_task(running: None, handler: logging.StreamHandler[io.StringIO]) -> None:
    handler.addFilter(TaskContextFilter())
    logging.getLogger("tests.log").warning("hello")
    assert written(handler) == "WARNING [app.tasks.add(id-1)] hello\n"


def test_outside_a_task_there_are_question_marks(handler: logging.StreamHandler[io.StringIO]) -> None:
    handler.addFilter(TaskContextFilter())
    logging.getLogger("tests.log").warning("hello")
    assert written(handler) == "WARNING [???(???)] hello\n"


def test_what_a_caller_says_of_the_task_counts(running: None, handler: logging.StreamHandler[io.StringIO]) -> None:
    handler.addFilter(TaskContextFilter())
    logging.getLogger("tests.log").warning("hello", extra={"task_id": "id-2", "task_name": "app.other"})
    assert written(handler) == "WARNING [app.other(id-2)] hello\n"


def test_a_task_formatter_needs_no_filter(running: None, handler: logging.StreamHandler[io.StringIO]) -> None:
    handler.setFormatter(TaskFormatter(FORMAT, use_color=False))
    logging.getLogger("tests.log").warning("hello")
    assert written(handler) == "WARNING [app.tasks.add(id-1)] hello\n"


def test_the_worker_marks_every_handler_once(running: None, handler: logging.StreamHandler[io.StringIO]) -> None:
    before = {each: list(each.filters) for each in logging.root.handlers}
    try:
        add_task_to_handlers()
        add_task_to_handlers()
        logging.getLogger("tests.log").warning("hello")
    finally:
        for each, filters in before.items():
            each.filters = filters
    assert len(handler.filters) == 1
    assert written(handler) == "WARNING [app.tasks.add(id-1)] hello\n"


def test_colours_are_for_terminals() -> None:
    record = logging.LogRecord("a", logging.ERROR, "", 1, "no", None, None)
    assert ColorFormatter(use_color=True).format(record) == "\x1b[31mno\x1b[0m"
    assert ColorFormatter(use_color=False).format(record) == "no"
    record.levelname = "INFO"
    assert ColorFormatter(use_color=True).format(record) == "no"


@given(st.text(st.characters(exclude_categories=())))
def test_escaped_text_stays_on_one_line_and_steers_nothing(text: str) -> None:
    """S7."""
    shown = escape(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)
    shown.encode()
    assert escape(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é ü 中", "plain é ü 中"),
        ("a\nINFO forged", r"a\nINFO forged"),
        ("\x1b[2J\r\t\x00", r"\x1b[2J\r\t\x00"),
        ("\u2028\u202e\x85\ud800", r"\u2028\u202e\x85\ud800"),
        ("%s %(task_id)s", "%s %(task_id)s"),
        (5, "5"),
    ],
)
def test_harm_is_made_visible(text: object, shown: str) -> None:
    assert escape(text) == shown


def test_a_task_cannot_forge_a_line_by_its_name(handler: logging.StreamHandler[io.StringIO]) -> None:
    handler.addFilter(TaskContextFilter())
    token = current_request.set(SimpleNamespace(id="1\n2", task="a\x1b[31m"))
    logging.getLogger("tests.log").warning("hello")
    current_request.reset(token)
    assert written(handler) == "WARNING [a\\x1b[31m(1\\n2)] hello\n"


def test_redirected_output_is_logged_line_by_line(handler: logging.StreamHandler[io.StringIO]) -> None:
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    proxy = LoggingProxy(logging.getLogger("tests.log"), logging.INFO)
    print("one", 1, file=proxy)
    print("two\n\nthree\x1b", file=proxy)
    proxy.writelines(["fo", "ur"])
    assert written(handler) == "INFO one 1\nINFO two\nINFO three\\x1b\n"
    proxy.flush()
    proxy.flush()
    assert written(handler).endswith("INFO four\n")
    proxy.write("x" * 10_000)
    assert len(written(handler)) > 10_000
    proxy.close()
    print("late", file=proxy)
    assert "late" not in written(handler)
    assert not proxy.isatty()


def test_a_handler_that_writes_to_redirected_output_does_not_call_itself(
    monkeypatch: pytest.MonkeyPatch, handler: logging.StreamHandler[io.StringIO]
) -> None:
    proxy = LoggingProxy(logging.getLogger("tests.log"))
    real = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", real)
    handler.setStream(proxy)  # type: ignore[arg-type]
    handler.setFormatter(logging.Formatter("%(message)s"))
    proxy.write("hello\n")
    assert real.getvalue() == "hello\n"
