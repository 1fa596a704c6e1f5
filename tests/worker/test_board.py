"""What a worker is told while it runs."""

from __future__ import annotations

import os

import pytest

from django_tasks.backends.base import Queues
from django_tasks.time_limits import TimeLimits
from django_tasks.worker.board import SIZE, Board


def test_nothing_was_said_to_a_new_one() -> None:
    board, own = Board(), Queues(("mail",), frozenset({"old"}))
    assert board.version == 0
    assert board.queues(own) == own
    assert board.limits() == {}


def test_queues_are_added_and_cancelled_for_those_that_name_some() -> None:
    board, own = Board(), Queues(("mail",))
    board.add("images")
    assert board.queues(own) == Queues(("mail", "images"))
    board.cancel("mail")
    assert board.queues(own) == Queues(("images",))
    board.cancel("images")
    assert board.queues(own) is None, "not all of them: none"
    board.add("mail")
    assert board.queues(own) == Queues(("mail",))


def test_who_consumes_everything_leaves_out_what_is_cancelled() -> None:
    board, own = Board(), Queues((), frozenset({"old"}))
    board.cancel("mail")
    assert board.queues(own) == Queues((), frozenset({"old", "mail"}))
    board.add("mail")
    board.add("old")
    assert board.queues(own) == Queues()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_a_child_reads_what_was_said_after_its_start() -> None:
    board = Board()
    said_in, said_out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(said_in, 1)
        os._exit(0 if board.version == 1 and board.limits() == {"some.task": TimeLimits(5, 3)} else 1)
    board.limit("some.task", TimeLimits(5, 3))
    os.write(said_out, b"!")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_more_than_it_can_keep_is_refused_and_nothing_is_lost() -> None:
    board = Board()
    board.add("mail")
    with pytest.raises(ValueError, match=f"it can keep {SIZE:,}"):
        board.limit("x" * SIZE, TimeLimits(5, 3))
    assert board.queues(Queues(("images",))) == Queues(("images", "mail"))
