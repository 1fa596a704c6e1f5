from __future__ import annotations

import itertools

import pytest

from django_tasks import states

ALL = states.UNFINISHED | states.FINISHED


def test_the_table_of_moves_knows_every_state_and_leads_to_known_ones_only() -> None:
    assert states.MOVES.keys() == ALL
    assert set().union(*states.MOVES.values()) <= ALL


@pytest.mark.parametrize("final", sorted(states.FINISHED))
def test_no_move_leaves_a_final_state(final: str) -> None:
    assert states.MOVES[final] == frozenset()


def test_every_state_can_be_reached() -> None:
    assert {target for target in ALL if states.leading_to(target)} == ALL


def test_leading_to_is_the_table_read_backwards() -> None:
    for source, target in itertools.product(ALL, ALL):
        assert (source in states.leading_to(target)) == (target in states.MOVES[source])


def test_what_is_claimed_was_waiting_to_run() -> None:
    assert states.leading_to(states.STARTED) == states.CLAIMABLE


def test_a_state_is_ready_or_not_but_never_both() -> None:
    assert not states.READY_STATES & states.UNREADY_STATES
    assert not states.UNFINISHED & states.FINISHED


def test_sets_and_order_are_celerys() -> None:
    assert sorted(states.ALL_STATES) == ["FAILURE", "PENDING", "RECEIVED", "RETRY", "REVOKED", "STARTED", "SUCCESS"]
    assert sorted(states.EXCEPTION_STATES) == ["FAILURE", "RETRY", "REVOKED"]
    assert sorted(states.PROPAGATE_STATES) == ["FAILURE", "REVOKED"]
    assert states.precedence("SUCCESS") == 0
    assert states.precedence("SUCCESS") < states.precedence("PROGRESS") < states.precedence("PENDING")


def test_a_state_compares_by_what_it_says() -> None:
    assert states.state(states.PENDING) < states.state(states.SUCCESS)
    assert states.state(states.PENDING) <= states.state(states.PENDING)
    assert states.state("PROGRESS") > states.state(states.STARTED)
    assert states.state("PROGRESS") < states.state(states.FAILURE)
    assert states.state(states.SUCCESS) >= states.state(states.REVOKED)
    assert states.state("PROGRESS") == "PROGRESS"


@pytest.mark.parametrize(
    ("stored", "shown"),
    [("WAITING", "PENDING"), ("UNROUTABLE", "PENDING"), ("LIMITED", "PENDING"), ("STARTED", "STARTED")],
)
def test_celerys_api_does_not_see_our_own_states(stored: str, shown: str) -> None:
    assert states.shown(stored) == shown


def test_what_a_limit_holds_back_after_a_retry_is_shown_as_retry() -> None:
    assert states.shown(states.LIMITED, retries=1) == states.RETRY
