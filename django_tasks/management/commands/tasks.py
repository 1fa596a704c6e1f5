"""``manage.py tasks``: look at tasks and act on them from the command line. It parses, shows and delegates."""

from __future__ import annotations

from django_tasks import clash

clash.ensure_ours()

import json  # noqa: E402 - PyPI's django-tasks must be found out before anything else fails
import re  # noqa: E402
import sys  # noqa: E402
from argparse import ArgumentTypeError, Namespace  # noqa: E402
from collections.abc import Callable, Collection, Iterable, Sequence  # noqa: E402
from dataclasses import asdict  # noqa: E402
from datetime import UTC, datetime, timedelta  # noqa: E402
from typing import Any  # noqa: E402

from django.core.exceptions import ImproperlyConfigured  # noqa: E402
from django.core.management.base import BaseCommand, CommandError, CommandParser  # noqa: E402
from django.db import DatabaseError  # noqa: E402
from django.utils import timezone, translation  # noqa: E402

from django_tasks import client, dashboard, display, doctor, ids, operations, paging, states  # noqa: E402
from django_tasks.conf import settings  # noqa: E402
from django_tasks.exceptions import NotRegistered, OperationalError, TaskError  # noqa: E402
from django_tasks.management.brokers import BrokerVerbs  # noqa: E402
from django_tasks.management.limits import LimitVerbs  # noqa: E402
from django_tasks.management.remote import RemoteVerbs, VerbParser  # noqa: E402
from django_tasks.management.schedules import ScheduleVerbs  # noqa: E402
from django_tasks.management.watching import WatchVerb  # noqa: E402
from django_tasks.models import Call, Task, TaskResult, TaskTag  # noqa: E402
from django_tasks.registry import tasks  # noqa: E402
from django_tasks.routing import validate_queue  # noqa: E402
from django_tasks.task import send_task  # noqa: E402
from django_tasks.utils.log import escape  # noqa: E402

#: Exit codes. 0 is "all is well".
PROBLEM, USAGE = 1, 2

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Command(BrokerVerbs, LimitVerbs, ScheduleVerbs, RemoteVerbs, WatchVerb, BaseCommand):
    help = "Look at background tasks and act on them. Exit codes: 0 well, 1 a problem was found, 2 wrong usage."
    requires_system_checks = ()  # the doctor tells what they find, and must come that far

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=VerbParser)

        def add(name: str, text: str, *aliases: str) -> VerbParser:
            verb: VerbParser = verbs.add_parser(name, aliases=aliases, help=text, description=text)
            verb.add_argument("--json", action="store_true", help="Print one JSON document.")
            return verb

        add("doctor", "Tell what is wrong, each problem with the command that cures it.")

        verb = add("list", "List tasks, newest first: what is to do, then what is done.")
        every = states.UNFINISHED | states.FINISHED
        verb.add_argument("--state", type=_state(every), metavar="STATE", help="Only those in this state.")
        verb.add_argument("--queue", type=_queue, metavar="QUEUE", help="Only those of this queue.")
        verb.add_argument("--name", metavar="NAME", help="Only those of this task.")
        verb.add_argument("--tag", metavar="TAG", help="Only those with this tag.")
        verb.add_argument("--limit", type=_positive, default=20, metavar="N", help="Most rows (default: 20).")

        verb = add("show", "Show everything about a task.")
        verb.add_argument("id", metavar="ID", help="The task's id, also one of your own.")

        verb = add("enqueue", "Send a task.", "call")
        verb.add_argument("name", metavar="NAME", help="The task's registered name.")
        verb.add_argument(
            "--args",
            dest="positional",
            type=_json(list),
            default=[],
            metavar="JSON",
            help="Positional arguments: a list.",
        )
        verb.add_argument("--kwargs", type=_json(dict), default={}, metavar="JSON", help="Named arguments: an object.")
        verb.add_argument("--queue", type=_queue, metavar="QUEUE", help="Not where the task says.")
        verb.add_argument("--countdown", type=float, metavar="SECONDS", help="Not before so many seconds from now.")
        verb.add_argument("--priority", type=int, metavar="N", help="-100 to 100; higher runs first.")
        verb.add_argument("--unregistered", action="store_true", help="Send it although this process does not know it.")

        verb = add("retry", "Run finished tasks again, with the same stored arguments.")
        verb.add_argument("ids", nargs="*", metavar="ID", help="Ids of finished tasks.")
        verb.add_argument("--failed", action="store_true", help="All failures that nobody ran again yet.")
        verb.add_argument("--name", metavar="NAME", help="With --failed: of this task only.")
        verb.add_argument("--since", type=_moment, metavar="TIME", help="With --failed: 30m, 2h, 7d, or ISO 8601.")
        verb.add_argument("--dry-run", action="store_true", help="Only say how many.")

        verb = add("revoke", "Cancel tasks: what waits never runs, what runs is asked to stop.")
        verb.add_argument("ids", nargs="*", metavar="ID", help="Ids of tasks that are not done.")
        verb.add_argument("--unroutable", metavar="NAME", help="All tasks of this name that no worker knows.")
        verb.add_argument("--name", metavar="NAME", help="All tasks of this name.")
        verb.add_argument("--queue", type=_queue, metavar="QUEUE", help="All tasks of this queue.")
        verb.add_argument("--tag", metavar="TAG", help="All tasks with this tag; all that is given must fit.")

        verb = add(
            "purge", "Delete what waits in queues, also for a limit or for a worker that knows it, without a trace."
        )
        verb.add_argument(
            "-Q", "--queues", nargs="+", type=_queue, required=True, metavar="QUEUE", help="The queues to empty."
        )
        verb.add_argument("--yes", action="store_true", help="Do it; else it only says how many.")

        verb = add("prune", "Delete old results; unless told otherwise, as RESULT_EXPIRES says.")
        final = _state(states.FINISHED)
        verb.add_argument(
            "--state", type=final, nargs="+", default=[], metavar="STATE", help="Final states (default: all)."
        )
        verb.add_argument("--older-than", type=_age, metavar="AGE", help="30m, 2h, 7d: instead of RESULT_EXPIRES.")

        self.add_limit_verbs(add)
        self.add_schedule_verbs(add)
        self.add_remote_verbs(add)
        self.add_broker_verbs(add)
        self.add_watch_verb(add)
        add("stats", "Tell what waits, runs and ended in the last hour, and who is at work.")

    def handle(self, *args: object, verb: str, **options: Any) -> None:
        given = Namespace(**options)
        try:
            code = getattr(self, f"do_{verb.replace('-', '_')}")(given)
        except ImproperlyConfigured as error:
            raise CommandError(str(error), returncode=PROBLEM) from error
        except (DatabaseError, OperationalError) as error:
            problem = f"The database {settings.DATABASE!r} cannot be used: {escape(error).strip()}"
            raise CommandError(f"{problem} See: manage.py tasks doctor", returncode=PROBLEM) from error
        if code:
            sys.exit(code)

    # Verbs: each returns the exit code

    def do_doctor(self, given: Namespace) -> int:
        with translation.override("en"):  # whoever searches for a sentence finds more in English
            found = doctor.examine()
        if given.json:
            self.tell({"ok": not found, "problems": [asdict(problem) for problem in found]})
        else:
            for problem in found:
                style = self.style.ERROR if problem.level == "error" else self.style.WARNING
                self.stdout.write(style(f"{problem.level.upper()} {problem.check}: {problem.problem}"))
                self.stdout.write(f"    {problem.cure}")
            self.stdout.write(f"{len(found)} found." if found else self.style.SUCCESS("All is well."))
        return PROBLEM if found else 0

    def do_list(self, given: Namespace) -> int:
        rows: list[Task | TaskResult] = []
        where = {key: value for key in ("queue", "name", "state") if (value := getattr(given, key)) is not None}
        if given.tag is not None:
            where["pk__in"] = TaskTag.objects.using(settings.DATABASE).filter(tag=given.tag).values("task_id")
        heavy = ("body", "options", "history")
        if given.state in {None, *states.UNFINISHED}:
            to_do = Task.objects.using(settings.DATABASE).filter(**where).defer(*heavy, "meta")
            rows += to_do.order_by("-pk")[: given.limit + 1]
        if given.state in {None, *states.FINISHED}:
            done = TaskResult.objects.using(settings.DATABASE).filter(**where).defer(*heavy, "result", "traceback")
            walks = None
            if given.state is None and given.name is None and given.tag is None:
                walks = [done.filter(state=state) for state in sorted(states.FINISHED)]
            rows += paging.page(done, ("finished_at", "id"), branches=walks, size=given.limit + 1).rows
        more = len(rows) > given.limit
        lines = [_line(row) for row in rows[: given.limit]]
        if given.json:
            self.tell({"tasks": lines, "more": more})
        else:
            self.table(("id", "state", "queue", "name", "created_at", "exception"), lines)
            if more:
                self.stderr.write(f"There are more than these {given.limit}; --limit shows more.")
        return 0

    def do_show(self, given: Namespace) -> int:
        key = ids.key_of(given.id)
        row = (
            Task.objects.using(settings.DATABASE).filter(pk=key).first()
            or TaskResult.objects.using(settings.DATABASE).filter(pk=key).first()
        )
        if row is None:
            raise CommandError(f"Nobody knows a task {given.id!r}; results may have expired.", returncode=PROBLEM)
        shown = _everything(row)
        if given.json:
            self.tell(shown)
            return 0
        for label, value in shown.items():
            if isinstance(value, list) and value:
                self.stdout.write(f"{label}:")
                for item in value:
                    self.stdout.write(
                        "".join(f"    {key}: {_block(each)}\n" for key, each in item.items() if each != "")
                    )
            elif value not in (None, "", []):
                self.stdout.write(f"{label}: {_block(value)}")
        return 0

    def do_enqueue(self, given: Namespace) -> int:
        options = {
            key: value for key in ("queue", "countdown", "priority") if (value := getattr(given, key)) is not None
        }
        try:
            if not given.unregistered:
                tasks[given.name]
            result = send_task(given.name, given.positional, given.kwargs, **options)
        except NotRegistered as error:
            raise CommandError(f"{error} To send it all the same, add --unregistered.", returncode=USAGE) from error
        except OperationalError:
            raise
        except (TypeError, ValueError, TaskError) as error:
            raise CommandError(escape(error), returncode=USAGE) from error
        if given.json:
            self.tell({"id": result.id, "name": given.name, "state": result.state})
        else:
            self.stdout.write(result.id)
        return 0

    do_call = do_enqueue  # Celery's name

    def do_retry(self, given: Namespace) -> int:
        if bool(given.ids) == given.failed:
            raise CommandError("Name the tasks by their ids, or take all failures with --failed.", returncode=USAGE)
        if given.ids and (given.name or given.since):
            raise CommandError("--name and --since choose among all failures: give --failed.", returncode=USAGE)
        chosen = operations.failed(name=given.name, since=given.since) if given.failed else given.ids
        if given.dry_run:
            self.say(given, {"chosen": len(chosen), "dry_run": True}, f"{len(chosen):,} would be run again.")
            return 0
        done = operations.retry(chosen)
        left = [("queued", "a copy is not done yet"), ("unfinished", "not done itself"), ("unknown", "not found")]
        left.append(("redacted", "their sensitive arguments were removed when they succeeded"))
        self.say(
            given,
            {"chosen": len(chosen), "dry_run": False, **asdict(done)},
            f"{len(done.copies):,} run again."
            + "".join(f"\n{len(those):,} left alone: {why}." for key, why in left if (those := getattr(done, key))),
        )
        return PROBLEM if done.unknown or done.unfinished or done.redacted else 0

    def do_revoke(self, given: Namespace) -> int:
        where = {key: value for key in ("name", "queue", "tag") if (value := getattr(given, key))}
        if [bool(given.ids), bool(given.unroutable), bool(where)].count(True) != 1:
            ways = "by their ids, or with --name, --queue and --tag, or with --unroutable NAME"
            raise CommandError(f"Name the tasks {ways}.", returncode=USAGE)
        if where:
            count = client.revoke_where(**where)
            self.say(given, {**where, "found": count}, f"{count:,} cancelled, or running and asked to stop.")
            return 0
        chosen: Iterable[str] = given.ids
        if given.unroutable:
            unroutable = Task.objects.using(settings.DATABASE).unroutable().filter(name=given.unroutable)
            chosen = [str(pk) for pk in unroutable.values_list("pk", flat=True)]
        done = operations.revoke(chosen)
        words = [("cancelled", "cancelled"), ("asked", "running, and asked to stop"), ("finished", "done before")]
        words.append(("unknown", "not found"))
        text = "\n".join(f"{len(those):,} {word}." for key, word in words if (those := getattr(done, key)))
        self.say(given, asdict(done), text or "0 found.")
        return PROBLEM if done.unknown else 0

    def do_purge(self, given: Namespace) -> int:
        queues = ", ".join(given.queues)
        if not given.yes:
            count = operations.waiting_in(given.queues)
            self.say(given, {"queues": given.queues, "waiting": count, "deleted": 0}, f"{count:,} wait in {queues}.")
            self.stderr.write("Nothing was deleted. To delete them without a trace, add --yes.")
            return USAGE
        count = operations.purge(given.queues)
        data = {"queues": given.queues, "waiting": operations.waiting_in(given.queues), "deleted": count}
        self.say(given, data, f"{count:,} deleted from {queues}.")
        return 0

    def do_prune(self, given: Namespace) -> int:
        count = operations.prune(given.state, given.older_than)
        self.say(given, {"deleted": count}, f"{count:,} results deleted.")
        return 0

    def do_stats(self, given: Namespace) -> int:
        stats = dashboard.stats()
        if given.json:
            self.tell(asdict(stats) | {"counted_to": paging.COUNT_LIMIT})
            return 0
        queues = [asdict(queue) for queue in stats.queues]
        self.stdout.write(self.style.MIGRATE_HEADING("Queues"))
        numbers = ("waiting", "scheduled", "limited", "running", "unroutable", "oldest_wait", "workers")
        self.table(("name", *numbers), queues)
        self.stdout.write(self.style.MIGRATE_HEADING("Workers"))
        workers = [asdict(worker) for worker in stats.workers]
        self.table(("name", "status", "queues", "concurrency", "processed", "silent_for"), workers)
        self.stdout.write(self.style.MIGRATE_HEADING("Finished in the last hour"))
        finished = [{"state": state, "count": _capped(count)} for state, count in stats.finished.items()]
        self.table(("state", "count"), finished)
        return 0

    # Showing

    def tell(self, data: Any) -> None:
        """Print one JSON document."""
        self.stdout.write(json.dumps(data, indent=2, default=_as_json))

    def say(self, given: Namespace, data: dict[str, Any], text: str) -> None:
        """Print the outcome of a verb, for programs or for people."""
        if given.json:
            self.tell(data)
        else:
            self.stdout.write(text)

    def table(self, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
        """Print rows under their columns."""
        cells = [[_cell(row[column]) for column in columns] for row in rows]
        widths = [max(len(column), *(len(row[at]) for row in cells), 0) for at, column in enumerate(columns)]
        for line in ([column.upper() for column in columns], *cells):
            self.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


# Values on the command line and on the terminal ----------------------------------------------------------------------


def _queue(text: str) -> str:
    try:
        return validate_queue(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def _state(allowed: Collection[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.upper() not in allowed:
            raise ArgumentTypeError(f"{text!r}; allowed: {', '.join(sorted(allowed))}")
        return text.upper()

    return parse


def _positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise ArgumentTypeError(f"{text!r}; allowed: a whole number from 1 to 10,000")
    return int(text)


def _json(kind: type) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ArgumentTypeError(f"{text!r} is no JSON: {error}") from error
        if not isinstance(value, kind):
            wanted = "a list, e.g. '[1, 2]'" if kind is list else """an object, e.g. '{"key": 1}'"""
            raise ArgumentTypeError(f"{text!r}; allowed: {wanted}")
        return value

    return parse


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if not found:
        raise ArgumentTypeError(f"{text!r}; allowed: a number and s, m, h, d or w, e.g. 30m, 2h, 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC) - _age(text)
    return moment if moment.tzinfo else timezone.make_aware(moment)


def _line(row: Task | TaskResult) -> dict[str, Any]:
    return {
        "id": row.task_id,
        "state": row.state if isinstance(row, TaskResult) else row.shown_state,
        "queue": row.queue,
        "name": row.name,
        "priority": row.priority,
        "attempt": row.attempt,
        "retries": row.retries,
        "created_at": row.created_at,
        "due_at": row.due_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at if isinstance(row, TaskResult) else None,
        "runtime": row.runtime if isinstance(row, TaskResult) else None,
        "worker": row.worker if isinstance(row, TaskResult) else "",
        "exception": row.exception if isinstance(row, TaskResult) else "",
    }


def _everything(row: Task | TaskResult) -> dict[str, Any]:
    call: Call = row
    shown = _line(row) | {
        "key": str(row.pk),
        "expires_at": row.expires_at,
        "root_id": row.root_id,
        "parent_id": row.parent_id,
        "retry_of": display.options_of(call).get(operations.RETRY_OF),
        "retried_as": [],
        "tags": list(display.options_of(call).get("tags", ())),
        "options": display.shown_options(call),
        "encoding": row.encoding,
        "arguments": [{"name": one.name, "text": one.value.text} for one in display.arguments(call, full=True)],
        "attempts": [asdict(attempt) for attempt in display.attempts(call, full=True)],
    }
    if isinstance(row, TaskResult):
        shown["retried_as"] = [asdict(copy) for copy in operations.copies_of(row)]
        shown["result"] = display.outcome(row, full=True).text
        shown["traceback"] = display.cut(row.traceback or "")
    else:
        name = dashboard.worker_names([row.worker_id]).get(row.worker_id, "") if row.worker_id else ""
        told = display.progress(row, full=True) or {"text": ""}
        shown |= {"worker": name, "losses": row.losses, "revoked_at": row.revoked_at, "progress": told["text"]}
    return shown


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{timezone.localtime(value):%Y-%m-%d %H:%M:%S}"
    return display.short(escape(f"{value:.0f} s" if isinstance(value, float) else value), 100)


def _block(value: Any) -> str:
    """Return a value whose lines are kept; what could steer the terminal is not."""
    if isinstance(value, datetime):
        return value.isoformat()
    lines = [escape(line) for line in str(value).split("\n")]
    return lines[0] if len(lines) == 1 else "".join(f"\n        {line}" for line in lines)


def _capped(count: int) -> str:
    return f"{count:,}" if count <= paging.COUNT_LIMIT else f"{paging.COUNT_LIMIT:,}+"


def _as_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
