"""The verbs of ``manage.py tasks`` that speak with running workers: inspect, control, status, ping, health."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from textwrap import indent
from typing import Any

from django.core.management.base import CommandError, CommandParser

from .. import client, control, health, ids, panel
from ..beat import history
from ..dashboard import database_now
from ..exceptions import TimeoutError
from ..registry import autodiscover
from ..result import AsyncResult
from ..utils.log import escape
from ..worker import commands as _  # noqa: F401 - every worker's commands are registered by that
from ..worker.report import report_text

#: Exit codes. 69 is Celery's, from sysexits.h: the service is not available.
PROBLEM, USAGE, NO_REPLY = 1, 2, 69
#: What is done whether a worker runs or not; workers only answer.
LASTING = frozenset(["rate_limit", "revoke", "revoke_by_stamped_headers", "terminate"])


class VerbParser(CommandParser):
    """Reads the options of a verb; its help ends with what ``more`` returns when somebody asks for it."""

    more: Callable[[], str] = staticmethod(str)

    def format_help(self) -> str:
        return super().format_help() + self.more()


class RemoteVerbs:
    """Part of the command ``tasks``, which parses, shows and delegates."""

    stdout: Any
    stderr: Any
    style: Any
    tell: Callable[[Any], None]

    def add_remote_verbs(self, add: Callable[[str, str], VerbParser]) -> None:
        """Declare the verbs."""
        kinds: dict[panel.Kind, str] = {
            "inspect": "Ask running workers what they do.",
            "control": "Tell running workers what to do.",
        }
        for kind, text in kinds.items():
            verb = add(kind, f"{text} Ends with 69 if nobody replies.")
            verb.more = partial(_listing, kind)
            verb.add_argument("command", nargs="?", metavar="COMMAND", help="What to send; --list tells.")
            verb.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="What the command takes.")
            verb.add_argument("--list", action="store_true", help="Tell the commands and what they take.")
            _add_wait(verb, None, "what the command says, mostly 1")
        _add_wait(add("status", "Tell which workers are online. Ends with 69 if none is."))
        _add_wait(add("ping", "Ask workers and beats for a sign of life. Ends with 69 if nobody replies."), 2.0, "2")

        verb = add("result", "Tell the return value of a task, once it is done.")
        verb.add_argument("id", metavar="ID", help="The task's id, also one of your own.")
        verb.add_argument("--traceback", action="store_true", help="The traceback instead of the value.")
        verb.add_argument(
            "-t", "--timeout", type=_seconds, metavar="SECONDS", help="Wait no longer (default: for ever)."
        )

        add("report", "Tell versions, machine and settings, for a report of a problem.")

        verb = add("health", "Tell whether workers are alive: 0 yes, 1 no. Without --file any online worker counts.")
        verb.add_argument("--beat", action="store_true", help="Whether a beat is alive: one that stands still is not.")
        verb.add_argument("--file", metavar="FILE", help="What a worker's --health-file names; asks no database.")
        verb.add_argument(
            "--max-age",
            type=health.seconds,
            default=health.MAX_AGE,
            metavar="SECONDS",
            help="With --file: it may be so old (default: 30).",
        )

    def do_inspect(self, given: Namespace) -> int:
        return self._remote("inspect", given)

    def do_control(self, given: Namespace) -> int:
        return self._remote("control", given)

    def do_status(self, given: Namespace) -> int:
        given.quiet = True
        return self._show(given, control.ping(given.destination, given.timeout), counts=True)

    def do_ping(self, given: Namespace) -> int:
        return self._show(given, control.ping(_everybody(given.destination), given.timeout), counts=True)

    def do_result(self, given: Namespace) -> int:
        if not client.exists(ids.key_of(given.id)):
            raise CommandError(f"Nobody knows a task {given.id!r}; results may have expired.", returncode=PROBLEM)
        result: AsyncResult[Any] = AsyncResult(given.id)
        try:
            value = result.get(timeout=given.timeout, propagate=False)
        except TimeoutError as error:
            raise CommandError(f"{error} It is {result.state}.", returncode=PROBLEM) from error
        state = result.state
        shown = result.traceback or "" if given.traceback else value
        if given.json:
            told = value if result.successful() else f"{type(value).__name__}: {value}"
            self.tell({"id": given.id, "state": state, "result": told, "traceback": result.traceback})
        elif given.traceback:
            self.stdout.write(_lines(str(shown)))
        elif result.successful():
            self.stdout.write(_lines(value if isinstance(value, str) else _pretty(value)))
        else:
            self.stderr.write(f"{state}: {escape(f'{type(value).__name__}: {value}')}")
        return 0 if result.successful() else PROBLEM

    def do_report(self, given: Namespace) -> int:
        text = report_text()
        if given.json:
            self.tell({"report": text})
        else:
            self.stdout.write(text)
        return 0

    def do_health(self, given: Namespace) -> int:
        if given.file:
            problem = health.problem_of(given.file, given.max_age)
            said = f"{given.file} is fresh."
        else:
            nodes = [beat.name for beat in history.online(database_now())] if given.beat else control.nodes()
            what, command = ("beat", "runbeat") if given.beat else ("worker", "runworker")
            problem = None if nodes else f"No {what} is online. Start one: manage.py {command}"
            said = f"Online: {', '.join(nodes)}."
        if given.json:
            self.tell({"ok": not problem, "problem": problem})
        elif problem:
            self.stderr.write(problem)
        else:
            self.stdout.write(escape(said))
        return PROBLEM if problem else 0

    # Commands to workers

    def _remote(self, kind: panel.Kind, given: Namespace) -> int:
        autodiscover()
        known = panel.visible(kind)
        if given.list:
            if given.json:
                self.tell([{"command": command, "meaning": meaning} for command, meaning in _lines_of(known)])
            else:
                self.stdout.write(_table(known))
            return 0
        info = known.get(given.command)
        if info is None:
            what = f"{given.command!r} is none" if given.command else "Name a command"
            raise CommandError(f"{what}; {kind} has: {', '.join(known)}.", returncode=USAGE)
        arguments = _arguments(info, given.arguments)
        timeout = info.default_timeout if given.timeout is None else given.timeout
        options = {"destination": given.destination, "timeout": timeout}
        try:
            if info.name == "ping":
                options["destination"] = _everybody(given.destination)
            if kind == "inspect":
                found = control.inspect(**options).ask(info.name, **arguments) or {}
                replies = [{name: answer} for name, answer in found.items()]
            elif info.builtin:  # its method knows what has to be done besides
                replies = getattr(control.control, info.name)(**arguments, **options, reply=True)
            else:
                replies = control.broadcast(info.name, arguments, reply=True, **options) or []
        except TypeError as error:
            takes = f"{info.name} takes {info.signature or 'nothing'}: {escape(error)}"
            raise CommandError(takes, returncode=USAGE) from error
        except ValueError as error:
            raise CommandError(escape(error), returncode=USAGE) from error
        if not replies and info.name in LASTING:
            if given.json:
                self.tell({})
            else:
                self.stdout.write("It is stored; no worker is there to answer.")
            return 0
        return self._show(given, replies, counts=kind == "inspect")

    def _show(self, given: Namespace, replies: Sequence[Mapping[str, Any]], *, counts: bool) -> int:
        """Show replies as Celery does; return the exit code. Nodes of one name are shown each; in JSON they are one."""
        found = [reply for one in replies for reply in one.items()]
        if given.json:
            self.tell(dict(found))
        if not found:
            raise CommandError("No nodes replied within time constraint.", returncode=NO_REPLY)
        failed = False
        for name, answer in found:
            bad = isinstance(answer, dict) and set(answer) == {"error"}
            failed |= bad
            if not given.json:
                self.stdout.write(f"->  {escape(name)}: {self.style.ERROR('ERROR') if bad else 'OK'}")
                if not getattr(given, "quiet", False):
                    self.stdout.write(indent(_shown(answer), " " * 8))
        if counts and not given.json:
            self.stdout.write(f"\n{len(found)} node{'s' * (len(found) != 1)} online.")
        return PROBLEM if failed else 0


def _add_wait(verb: CommandParser, default: float | None = 1.0, told: str = "1") -> None:
    verb.add_argument("-d", "--destination", type=_names, metavar="NODE,…", help="Only these nodes, by their names.")
    verb.add_argument(
        "-t",
        "--timeout",
        type=_seconds,
        default=default,
        metavar="SECONDS",
        help=f"Wait for replies (default: {told}).",
    )


def _lines_of(known: Mapping[str, panel.CommandInfo]) -> list[tuple[str, str]]:
    """Return for each command how it is called, and what it does."""
    return [(f"{name} {info.signature}".strip(), info.help) for name, info in known.items()]


def _table(known: Mapping[str, panel.CommandInfo]) -> str:
    lines = _lines_of(known)
    width = max(len(line[0]) for line in lines)
    return "\n".join(f"{command:<{width}}  {meaning}".rstrip() for command, meaning in lines)


def _listing(kind: panel.Kind) -> str:
    autodiscover()
    return f"\ncommands:\n{indent(_table(panel.visible(kind)), '  ')}\n"


def _everybody(destination: list[str] | None) -> list[str]:
    """Return whom a ping asks: unless it names somebody, beats, too, which answer only to their names."""
    return [*control.nodes(), *control.beats()] if destination is None else destination


def _names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if not names:
        raise ArgumentTypeError(f"{text!r}; allowed: names of nodes, separated by commas")
    return names


def _seconds(text: str) -> float:
    return health.seconds(text)


def _arguments(info: panel.CommandInfo, words: Sequence[str]) -> dict[str, Any]:
    """Return what stands on the command line as the command's arguments."""
    usage = f"Usage: {info.kind} {info.name} {info.signature}".rstrip()
    if len(words) > len(info.args) and info.variadic is None:
        raise CommandError(f"{info.name} takes no {words[len(info.args)]!r}. {usage}", returncode=USAGE)
    found: dict[str, Any] = {}
    for (name, kind), word in zip(info.args, words, strict=False):
        try:
            found[name] = word if kind is None else kind(word)
        except (TypeError, ValueError) as error:
            raise CommandError(f"{name} {word!r}: {error}. {usage}", returncode=USAGE) from error
    if info.variadic is not None:
        found[info.variadic] = list(words[len(info.args) :])
    return found


def _shown(answer: Any) -> str:
    if isinstance(answer, dict) and len(answer) == 1 and set(answer) <= {"ok", "error"}:
        answer = next(iter(answer.values()))
    if answer in ([], {}, None):
        return "- empty -"
    if isinstance(answer, list) and all(isinstance(each, str) for each in answer):
        return "\n".join(f"* {escape(each)}" for each in answer)
    text = answer if isinstance(answer, str) else _pretty(answer)
    return _lines(text)


def _lines(text: str) -> str:
    """Return a text whose lines are kept; what could steer the terminal is not."""
    return "\n".join(escape(line) for line in text.split("\n"))


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, default=str, ensure_ascii=False)
