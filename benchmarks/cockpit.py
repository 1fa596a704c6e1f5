"""What the admin's pages cost on full tables: ``python -m benchmarks.cockpit --rows 10000000``.

A private PostgreSQL, MariaDB or SQLite makes the rows itself, so ten million of them take minutes: a week of results of
200 tasks in five queues, a hundredth of it failed, a tenth of it in workflows of 20; tasks that wait; one workflow of
100,000; and the rollups and workers of a busy hour. Each page is opened as a superuser, and the best of five times is
printed; then how long commands take, and how fast much is run again or deleted.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import servers
from benchmarks.rows import ago, copy, id_of, settle, text_of, without_indexes

#: Members of the one large workflow.
LARGE: Final = 100_000
#: Seconds that the results are of.
WEEK: Final = 604_800.0
#: Times that each page is opened; the best one counts.
TIMES: Final = 5
#: The session, who it is, and the time limit of lists: not what the budgets are about.
BESIDE: Final = re.compile(
    r"django_session|auth_user|statement_timeout|max_statement_time|^(SAVEPOINT|RELEASE|BEGIN|COMMIT|ROLLBACK)"
)
ROOT: Final = "00000000-0000-7000-8001-000000000001"
DATABASES: Final = ("postgresql", "mariadb", "sqlite")
#: The tabs of the two lists.
TASK_STATES: Final = ("PENDING", "STARTED", "RETRY", "LIMITED", "WAITING", "UNROUTABLE")
RESULT_STATES: Final = ("SUCCESS", "FAILURE", "REVOKED", "REJECTED", "IGNORED")


class Page(NamedTuple):
    """A page, and what it may cost at most, if the design says."""

    name: str
    url: str
    #: Milliseconds.
    limit: float | None = None
    queries: int | None = None
    #: What is sent, to a page that answers who asks for something.
    data: Mapping[str, str] | None = None
    #: No index serves it: it is looked for until it would take too long.
    searched: bool = False


class Cost(NamedTuple):
    """What a page costs at best."""

    milliseconds: float
    #: What this process and the server's worked for it: a busy machine makes it a little more, but no multiple.
    cpu: float
    server: float
    queries: int
    characters: int


def shop(rows: int) -> dict[str, dict[str, str]]:
    """Return what differs in the copies of a row, so many results among them: SQL, in which n counts them."""
    name = {"name": text_of("'shop.tasks.number_'", "n %% 200"), "queue": text_of("'queue_'", "n %% 5")}
    before = {"created_at": 3, "due_at": 3, "started_at": 2, "finished_at": 1}
    lost = text_of("'ValueError: order '", "n")
    held = "WHEN 1 THEN 'RETRY' WHEN 2 THEN 'WAITING' WHEN 3 THEN 'LIMITED'"
    return {
        "results": {
            **name,
            "state": "CASE WHEN n %% 100 = 7 THEN 'FAILURE' WHEN n %% 1000 = 8 THEN 'REVOKED' ELSE 'SUCCESS' END",
            "exception": f"CASE WHEN n %% 100 = 7 THEN {lost} ELSE '' END",
            "root_id": f"CASE WHEN n %% 10000 BETWEEN 3000 AND 3999 THEN {id_of('(n - n %% 20 + 1)')} END",
            "runtime": "n %% 100 / 50.0",
            **{column: ago(f"({rows} - n) * {WEEK / rows} + {seconds}") for column, seconds in before.items()},
        },
        "waiting": {
            **name,
            "state": f"CASE n %% 1000 {held} ELSE 'PENDING' END",
            "limit_key": "CASE n %% 1000 WHEN 3 THEN '' END",
            "due_at": ago("n * 0.1"),
            "created_at": ago("n * 0.1"),
        },
        "workflow": {
            "id": id_of("n", "8001"),
            "name": "'shop.tasks.transform'",
            "root_id": id_of("1", "8001"),
            "finished_at": ago("n * 0.02"),
        },
    }


def fill(rows: int, waiting_rows: int, large: int = LARGE) -> None:
    """Make a site that has been busy for a week, with so many results, tasks that wait, and members of a workflow."""
    from django_tasks.models import Task, TaskResult
    from tests.cockpit import site_rows
    from tests.rows import finished, saved, waiting

    site_rows.fill()
    [result], [task] = saved([finished()]), saved([waiting()])
    changed = shop(rows)
    with without_indexes(TaskResult):
        copy(TaskResult, rows, changed["results"], result.pk, progress("results", rows))
        copy(TaskResult, large, changed["workflow"], result.pk, progress("a workflow", large))
    with without_indexes(Task):
        copy(Task, waiting_rows, changed["waiting"], task.pk, progress("tasks that wait", waiting_rows))
    settle()


def progress(what: str, rows: int) -> Callable[[int], None]:
    """Return what tells on the screen how many rows there are by now."""

    def tell(made: int) -> None:
        end = "\n" if made == rows else ""
        print(f"\r{what}: {made:,} of {rows:,}", end=end, file=sys.stderr, flush=True)

    return tell


def pages(rows: int, waiting_rows: int, large: int = LARGE) -> list[Page]:
    """Return the pages that are opened, with the budgets of the design."""
    admin = "/admin/django_tasks"
    task, result = f"{admin}/task/", f"{admin}/taskresult/"
    half, middle = f"{_key(waiting_rows // 2)}", f"{_key(rows // 2)}"
    of_all = {"select_across": "1", "index": "0"}
    return [
        Page("overview", f"{admin}/overview/", 150, 14),
        Page("overview, 30 days", f"{admin}/overview/?span=30d", 150, 14),
        Page("overview.json", f"{admin}/overview/overview.json", 150, 14),
        Page("tasks", task, 100, 6),
        *(Page(f"tasks, {state}", f"{task}?state={state}", 100, 6) for state in TASK_STATES),
        Page("tasks, far behind", f"{task}?older={half}", 100, 6),
        Page("tasks, far behind, back", f"{task}?newer={half}", 100, 6),
        Page("tasks, large queue", f"{task}?queue=queue_1", 100, 6),
        Page("tasks, small queue", f"{task}?queue=images", 100, 6),
        Page("tasks, one name", f"{task}?name=shop.tasks.number_7", 100, 6, searched=True),
        Page("tasks, rare name", f"{task}?name=shop.tasks.shrink", 100, 6, searched=True),
        Page("tasks of a worker", f"{task}?q=worker:w1@web1", 100, 6),
        Page("tasks, searched: try", f"{task}?q=try:%3E3", 100, 6, searched=True),
        Page("tasks, run for long", f"{task}?run=%3E10m", 100, 6),
        Page("tasks, root tasks only", f"{task}?is=root", 100, 6, searched=True),
        Page("tasks, retried", f"{task}?retried=yes", 100, 6, searched=True),
        Page("tasks, looked at again", f"{task}?fragment=1", 100, 6),
        Page("tasks, all to be cancelled?", task, 1_000, None, {"action": "cancel", **of_all}, searched=True),
        Page("a task", f"{task}{half}/change/", 100, 10),
        Page("results", result, 100, 6),
        *(Page(f"results, {state}", f"{result}?state={state}", 100, 6) for state in RESULT_STATES),
        Page("results, a week", f"{result}?finished=week", 100, 6),
        Page("results, one name", f"{result}?name=shop.tasks.number_7", 100, 6),
        Page("results, far behind", f"{result}?older={{middle}}", 100, 6),
        Page("results, far behind, back", f"{result}?newer={{middle}}", 100, 6),
        Page("results, one queue", f"{result}?queue=queue_1", 100, 6, searched=True),
        Page("results, no such queue", f"{result}?queue=none", 100, 6, searched=True),
        Page("results, no such tag", f"{result}?tag=none", 100, 6),
        Page("results, ran long", f"{result}?run=%3E10m", 100, 6, searched=True),
        Page("results, have a parent", f"{result}?is=child", 100, 6, searched=True),
        Page("results, priority", f"{result}?prio=%3E0", 100, 6, searched=True),
        Page("results, looked at again", f"{result}?fragment=1", 100, 6),
        Page("results, searched: exc", f"{result}?q=exc:KeyError", 100, 6, searched=True),
        Page("results, searched: worker", f"{result}?q=worker:gone", 100, 6, searched=True),
        Page("results, searched: run", f"{result}?q=run:%3E100s", 100, 6, searched=True),
        Page("results, searched: args", f"{result}?q=args:nothing", 100, 6, searched=True),
        Page("results, all of that, exc", f"{result}?q=exc:KeyError&further=1", None, 6, searched=True),
        Page(
            "failures, all to run again?",
            f"{result}?state=FAILURE",
            1_000,
            None,
            {"action": "retry", **of_all},
            searched=True,
        ),
        Page("a result", f"{result}{middle}/change/", 100, 10),
        Page("failures", f"{result}failures/"),
        Page("failures, 7 days", f"{result}failures/?since=7d"),
        Page("queues", f"{admin}/queue/"),
        Page("a queue", f"{admin}/queue/queue_1/change/"),
        Page("task types", f"{admin}/tasktype/"),
        Page("a task type", f"{admin}/tasktype/shop.tasks.number_7/change/"),
        Page("workers", f"{admin}/worker/"),
        Page("workflows", f"{admin}/workflow/", 150),
        Page(f"a workflow of {large:,}", f"{admin}/workflow/{ROOT}/change/", 150),
        Page("bulk operations", f"{admin}/bulkoperation/"),
        Page("health", f"{admin}/health/", searched=True),
    ]


def _key(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012x}"


def measure(client: Any, page: Page, *, unchanged: bool = False) -> Cost:
    """Open a page some times and return its least cost; ``unchanged``: by a browser that has it as it is. What is asked
    once for a process is not of its cost."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from django_tasks.cockpit import overview

    costs = []
    for _ in range(TIMES + 1):
        headers = {"If-None-Match": client.get(page.url).headers["ETag"]} if unchanged else {}
        if not unchanged:
            overview.forget()
        with CaptureQueriesContext(connection) as queries:
            began, worked, served = time.perf_counter(), time.process_time(), server_cpu()
            if page.data is not None:
                answer = client.post(page.url, page.data)
            else:
                answer = client.get(page.url, headers=headers)
            took, cpu = 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - worked)
            server = server_cpu() - served
        if answer.status_code not in (200, 304):
            raise SystemExit(f"{page.url} answered {answer.status_code}")
        counted = sum(not BESIDE.search(query["sql"]) for query in queries)
        if not unchanged or answer.status_code == 304:  # on a slow machine it is gathered anew after its second
            costs.append(Cost(took, cpu, server, counted, len(answer.content)))
    if not costs:
        raise SystemExit(f"{page.url} was different each time")
    return Cost(*map(min, zip(*costs, strict=True)))


def server_cpu() -> float:
    """Return for how many milliseconds the server's process or thread of our connection has worked; 0 without one."""
    from django.db import connection

    connection.ensure_connection()
    served = thread_of(connection.connection, connection.vendor)
    return int(Path(f"/proc/{served}/schedstat").read_text().split()[0]) / 1_000_000 if served else 0.0


@functools.lru_cache(maxsize=1)
def thread_of(raw: Any, vendor: str) -> int:
    """Return the number that Linux knows the server's side of a connection by; 0 if there is none."""
    if vendor == "postgresql":
        return int(raw.info.backend_pid)
    if vendor == "sqlite":
        return 0
    with raw.cursor() as cursor:
        cursor.execute("SELECT tid FROM information_schema.processlist WHERE id = connection_id()")
        return int(cursor.fetchone()[0])


def opened(rows: int, waiting_rows: int) -> dict[str, tuple[Page, Cost]]:
    """Open all pages."""
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.force_login(User.objects.create_superuser("anna"))
    found = {}
    for page in pages(rows, waiting_rows):
        if "{middle}" in page.url:
            page = page._replace(url=page.url.format(middle=bookmark(rows)))
        found[page.name] = (page, measure(client, page))
    look = Page("overview, unchanged", "/admin/django_tasks/overview/?span=1h&fragment=1", 5, 2)
    found[look.name] = (look, measure(client, look, unchanged=True))
    return found


def bookmark(rows: int) -> str:
    """Return where the page in the middle of the ledger begins, as a link would have it."""
    from urllib.parse import quote

    from django_tasks.models import TaskResult

    row = TaskResult.objects.get(pk=_key(rows // 2))
    return quote(f"{row.finished_at.isoformat()}~{row.pk}")


def paces(seconds: float = 5.0) -> dict[str, tuple[float, str]]:
    """Return how long commands take, and how fast much is deleted, or run again in the background."""
    from io import StringIO

    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.http import HttpRequest

    from django_tasks import actions, bulk, operations
    from django_tasks.cockpit.prometheus import TasksCollector

    found = {}
    for words in ("stats", "doctor", "list", "list --state FAILURE"):
        began = time.perf_counter()
        with suppress(SystemExit):
            call_command("tasks", *words.split(), stdout=StringIO(), stderr=StringIO())
        found[f"manage.py tasks {words}"] = (1000 * (time.perf_counter() - began), "ms")
    began = time.perf_counter()
    list(TasksCollector().collect())
    found["/metrics"] = (1000 * (time.perf_counter() - began), "ms")
    request = HttpRequest()
    request.user = User.objects.get(username="anna")
    began = time.perf_counter()
    action = actions.BY_NAME["retry"]
    operation = bulk.begin(action, {}, search="", filters={"state": "FAILURE"}, request=request)
    found["all failures to run again: begun"] = (1000 * (time.perf_counter() - began), "ms")
    began = time.perf_counter()
    done = bulk.work(operation.pk, seconds)
    assert done is not None
    found["all failures to run again: done"] = (done.changed / (time.perf_counter() - began), "rows a second")
    began = time.perf_counter()
    count = operations.prune(["SUCCESS"], timedelta(days=6, hours=20))
    found["manage.py tasks prune"] = (count / (time.perf_counter() - began), "rows a second")
    return found


def main() -> None:
    """Fill, open, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cockpit", description=__doc__)
    parser.add_argument("--broker", choices=DATABASES, default=DATABASES[0], help="where the tasks are")
    parser.add_argument("--rows", type=int, default=10_000_000, help="in the ledger")
    parser.add_argument("--waiting", type=int, help="in the to-do list; as many as in the ledger, a million at most")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    given = parser.parse_args()
    if given.rows < 1_000:
        parser.error("--rows: at least 1,000")
    waiting_rows = given.waiting or min(given.rows, 1_000_000)
    load = os.getloadavg()[0]
    with servers.started(given.broker) as server:
        os.environ |= {"DATABASE_URL": server.url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0)
        began = time.perf_counter()
        fill(given.rows, waiting_rows)
        filled = time.perf_counter() - began
        found = opened(given.rows, waiting_rows)
        paced = paces()
        connections.close_all()
    print(f"{given.broker}: {given.rows:,} results and {waiting_rows:,} tasks that wait, made in {filled:.0f} s;")
    print(f"{os.cpu_count()} cores, {platform.machine()},", end=" ")
    print(f"Python {platform.python_version()}, load before {load:.2f}; best of {TIMES}\n")
    print(f"{'page':<28}{'ms':>8}{'budget':>8}{'Python':>8}{'server':>8}{'queries':>9}{'budget':>8}{'kB':>7}")
    for name, (page, cost) in found.items():
        limit = "" if page.limit is None else f"{page.limit:g}"
        queries = "" if page.queries is None else str(page.queries)
        missed = (page.limit is not None and cost.milliseconds > page.limit) or (
            page.queries is not None and cost.queries > page.queries
        )
        said = "  missed" if missed else ""
        size = cost.characters / 1000
        print(
            f"{name:<28}{cost.milliseconds:>8.1f}{limit:>8}{cost.cpu:>8.1f}{cost.server:>8.1f}{cost.queries:>9}{queries:>8}{size:>7.0f}{said}"
        )
    for name, (number, unit) in paced.items():
        print(f"{name:<34}{number:>10,.0f} {unit}")
    if given.json:
        figures = {name: cost._asdict() for name, (_page, cost) in found.items()}
        told = {
            "broker": given.broker,
            "rows": given.rows,
            "waiting": waiting_rows,
            "load": load,
            "pages": figures,
            "paces": paced,
        }
        given.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
