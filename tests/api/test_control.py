"""What can be said of remote control without any worker: arguments, refusals, declarations."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from typing import Any

import pytest
from celery.app import control as celery_control
from celery.worker.control import Panel
from django.db import transaction

from django_tasks import chain, control, group, panel, shared_task, states
from django_tasks.backends import get_broker
from django_tasks.control import Control, Inspect, control_command, inspect, inspect_command
from django_tasks.exceptions import WouldBlockForever
from django_tasks.models import Command
from tests.backends.calls import a_worker
from tests.databases import TestDatabase

brokers = pytest.mark.databases("sqlite", "redis")


@pytest.fixture
def declared() -> Iterator[dict[str, panel.CommandInfo]]:
    """Give the registry with a worker's own commands; it is as it was after the test."""
    import django_tasks.worker.commands  # noqa: F401

    before = dict(panel.commands)
    yield panel.commands
    panel.commands.clear()
    panel.commands.update(before)


def test_the_module_reads_as_celerys_app_control() -> None:
    methods = {name for name in vars(Control) if not name.startswith("_")}
    assert methods == {
        "inspect", "broadcast", "revoke", "terminate", "revoke_by_stamped_headers", "purge", "discard_all",
        "rate_limit", "time_limit", "ping", "shutdown", "pool_grow", "pool_shrink", "pool_restart", "autoscale",
        "add_consumer", "cancel_consumer", "heartbeat", "enable_events", "disable_events", "quiet", "resume",
    }  # fmt: skip
    for name in methods:
        assert getattr(control, name) == getattr(control.control, name)
    assert inspect == control.control.inspect


#: What Celery has besides: elections among workers, and looks at the memory of an interpreter.
NOT_HERE = {"Mailbox", "election", "memsample", "memdump", "objgraph"}
#: What may be told here besides.
MORE = {"shutdown": ["cold"]}


def by_position(method: Any) -> list[str]:
    """Return the names of the parameters that may be given by position."""
    parameters = signature(method).parameters.values()
    return [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize("ours", [Control, Inspect])
def test_methods_take_what_celery_s_take_in_the_same_order(ours: type) -> None:
    theirs = vars(getattr(celery_control, ours.__name__))
    methods = {name: method for name, method in theirs.items() if name[0] != "_" and callable(method)}
    for name, method in methods.items():
        if name not in NOT_HERE and not name.endswith("_events"):
            taken = by_position(getattr(ours, name))
            assert taken == by_position(method)[: len(taken)], name


def test_workers_obey_the_same_commands_of_the_same_kinds(declared: dict[str, panel.CommandInfo]) -> None:
    for name, info in Panel.meta.items():
        if name not in NOT_HERE and not name.endswith("_events"):
            assert declared[name].kind == info.type, name
            assert declared[name].variadic == info.variadic, name
            assert (declared[name].alias, declared[name].visible) == (info.alias, info.visible), name
            assert info.alias is None or declared[info.alias] is declared[name], name
            taken = [one for one, _ in declared[name].args if one not in MORE.get(name, ())]
            assert taken == [one for one, _ in info.args or ()][: len(taken)], name


@brokers
def test_nobody_answers_where_nobody_is(database: TestDatabase) -> None:
    assert control.ping(timeout=60) == []
    assert control.inspect(timeout=60).ping() is None
    assert control.inspect(timeout=60).active() is None
    assert control.broadcast("ping", reply=True, timeout=60) == []
    assert control.shutdown() is None
    assert control.nodes() == []
    assert not Command.objects.exists()


@brokers
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"destination": "w1@h"}, "destination must be a list of node names, not 'w1@h'"),
        ({"timeout": -1}, "timeout must be a number of seconds from 0, not -1"),
        ({"timeout": None}, "timeout must be a number of seconds"),
        ({"limit": 0}, "limit must be a whole number from 1, or None, not 0"),
        ({"matcher": "sql", "pattern": "a"}, "matcher='sql': allowed are 'glob' and 'pcre'"),
        ({"matcher": "pcre", "pattern": "("}, "is no regular expression"),
        ({"expires": "soon"}, "expires must be a number of seconds"),
        ({"connection": object()}, "connection and channel are no business of the caller here"),
    ],
)
def test_a_wrong_option_is_named(database: TestDatabase, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        control.broadcast("ping", reply=True, **options)


@pytest.mark.parametrize(
    "option", [{"exchange": "topics"}, {"exchange_type": "topic"}, {"routing_key": "a.*"}, {"options": {"x-max": 1}}]
)
def test_a_queue_has_no_exchange(option: dict[str, Any]) -> None:
    [name] = option
    with pytest.raises(ValueError, match=rf"add_consumer\({name}=.*there are no exchanges here"):
        control.add_consumer("mail", **option)


@brokers
def test_what_celery_s_users_write_for_a_plain_queue_is_taken(database: TestDatabase) -> None:
    assert control.add_consumer("mail", "mail", "direct", "mail", None, ["w1@h"]) is None


@brokers
def test_what_is_no_json_is_not_sent(database: TestDatabase) -> None:
    with pytest.raises(TypeError, match="The arguments of 'x' are no JSON"):
        control.broadcast("x", {"when": object()})
    with pytest.raises(ValueError, match="A command is a name of 1 to 255 characters, not ''"):
        control.broadcast("")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: control.enable_events(), "no event messages"),
        (lambda: control.disable_events(destination=["w"]), "no event messages"),
        (lambda: control.pool_restart(reload=True), "runworker --autoreload"),
        (lambda: control.pool_restart(["shop.tasks"]), "runworker --autoreload"),
    ],
)
def test_what_can_mean_nothing_here_is_refused(call: Any, words: str) -> None:
    with pytest.raises(NotImplementedError, match=words):
        call()


@brokers
def test_a_command_waits_for_a_worker_that_is_slow(database: TestDatabase) -> None:
    """It is stored for CONTROL_QUEUE_TTL; a question lives hardly longer than who asks."""
    holder = a_worker(get_broker(), name="w1@h")
    control.shutdown(["w1@h"])
    assert control.inspect(["w1@h"], timeout=0).ping() is None
    order, question = get_broker().commands(holder.worker)
    assert (order.name, question.name) == ("shutdown", "ping")
    assert 290 < order.expires_in < 301
    assert 0 < question.expires_in < 6
    control.pool_grow(2, pattern="w1*", expires=10)
    grown = get_broker().commands(holder.worker)[-1]
    assert (grown.arguments, 0 < grown.expires_in < 11) == ({"n": 2}, True)


@shared_task
def carry() -> None: ...


@brokers
def test_what_carries_a_stamp_is_revoked_whether_a_worker_runs_or_not(database: TestDatabase) -> None:
    first = group(carry.s().set(countdown=60), carry.s())
    first.stamp(customer=7)
    second = chain(carry.si(), carry.si())
    second.stamp(customer=[8, 9], run="a")
    hit, spared = first.apply_async(), second.apply_async()
    plain = carry.delay()
    assert control.revoke_by_stamped_headers({"customer": [6, "7"]}) is None
    assert [one.state for one in hit.results] == [states.REVOKED] * 2
    assert {spared.state, spared.parent.state, plain.state} == {states.PENDING}
    with transaction.atomic():
        assert control.revoke_by_stamped_headers(["run=a"], terminate=True) is None
        transaction.set_rollback(True)
    assert spared.parent.state == states.PENDING
    plain.revoke_by_stamped_headers({"customer": "9"})
    assert (spared.state, spared.parent.state, plain.state) == (states.REVOKED, states.REVOKED, states.PENDING)
    with pytest.raises(ValueError, match="headers must be"):
        control.revoke_by_stamped_headers({})
    with pytest.raises(ValueError, match="signal is 'SIGFOO'"):
        control.revoke_by_stamped_headers({"a": 1}, terminate=True, signal="SIGFOO")


@brokers
def test_replies_are_not_awaited_inside_of_a_transaction(database: TestDatabase) -> None:
    with transaction.atomic():
        for call in (control.revoke, control.revoke_by_stamped_headers):
            with pytest.raises(WouldBlockForever, match=r"revoke.*\(reply=True\) inside of a transaction"):
                call(["a=b"], reply=True)


def test_commands_are_declared_with_and_without_arguments(declared: dict[str, panel.CommandInfo]) -> None:
    @control_command(args=[("n", int)], signature="[N=1]")
    def grow_beard(state: Any, n: int = 1) -> None:
        """Let it grow.

        Slowly.
        """

    @inspect_command
    def look(state: Any) -> None: ...

    @inspect_command(name="gaze", variadic="ids", help="Look long.")
    def look_long(state: Any, ids: list[str]) -> None: ...

    grown = declared["grow_beard"]
    assert (grown.kind, grown.args, grown.signature, grown.help) == ("control", (("n", int),), "[N=1]", "Let it grow.")
    assert (declared["look"].kind, declared["look"].builtin) == ("inspect", False)
    assert (declared["gaze"].variadic, declared["gaze"].help) == ("ids", "Look long.")
    assert grown.function is grow_beard


def test_a_name_belongs_to_one_command(declared: dict[str, panel.CommandInfo]) -> None:
    from django_tasks.worker import commands

    with pytest.raises(ValueError, match=f"The command 'ping' is taken: {commands.__name__}.ping has it"):

        @inspect_command(name="ping")
        def mine(state: Any) -> None: ...


def test_a_command_has_celerys_options(declared: dict[str, panel.CommandInfo]) -> None:
    @inspect_command(alias="dump_look", visible=False, default_timeout=0.2, args=[("n", None), ("unit", str)])
    def look(state: Any, n: str, unit: str = "s") -> None: ...

    @control_command(args=[("n", int)], variadic="ids")
    def choose(state: Any, n: int = 1, **others: Any) -> None: ...

    assert declared["dump_look"] is declared["look"]
    assert declared["look"].default_timeout == 0.2
    assert {"look", "dump_look"}.isdisjoint(panel.visible("inspect"))
    assert {"choose"} == {"choose", "look"} & set(panel.visible("control"))
    assert (declared["look"].signature, declared["choose"].signature) == ("N [UNIT]", "[N] [IDS …]")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"args": [("n", int), ("m", int)]}, r"The command 'f' has an argument 'm' that .*f does not take\."),
        ({"variadic": "ids"}, "The command 'f' has an argument 'ids' that .*f does not take"),
        ({"args": ["n"]}, r"args of the command 'f' must be pairs \(name, type\).*; not 'n'"),
        ({"args": [("n", "int")]}, r"args of the command 'f' must be pairs .*; not \('n', 'int'\)"),
        ({"default_timeout": 0}, "default_timeout of the command 'f' must be a number of seconds above 0, not 0"),
        ({"default_timeout": "1"}, "default_timeout of the command 'f' must be .*, not '1'"),
        ({"alias": ""}, "A command is a name of 1 to 255 characters, not ''"),
        ({"alias": "ping"}, "The command 'ping' is taken"),
        ({"visible": "no"}, "visible of the command 'f' must be True or False, not 'no'"),
    ],
)
def test_what_a_command_cannot_be_is_refused_where_it_is_declared(
    declared: dict[str, panel.CommandInfo], options: dict[str, Any], message: str
) -> None:
    def f(state: Any, n: int = 1) -> None: ...

    with pytest.raises(ValueError, match=message):
        control_command(**options)(f)
    assert "f" not in declared
