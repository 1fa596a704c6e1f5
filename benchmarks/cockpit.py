"""What the admin's pages cost on full tables: ``python -m benchmarks.cockpit --rows 10000000``.

A private PostgreSQL makes the rows itself, so ten million of them take minutes: a week of results of 200 tasks in five
queues, a hundredth of it failed, a tenth of it in workflows of 20; a twentieth as many tasks that wait; one workflow of
100,000; and the rollups and workers of a busy hour. Each page is opened as a superuser, and the best of
five times is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import servers

#: Rows by one statement, so that a million show as progress.
CHUNK: Final = 1_000_000
#: Members of the one large workflow.
LARGE: Final = 100_000
#: Times that each page is opened; the best one counts.
TIMES: Final = 5
#: The session, who it is, and the time limit of lists: not what the budgets are about.
BESIDE: Final = re.compile(r"django_session|auth_user|statement_timeout|^(SAVEPOINT|RELEASE|BEGIN|COMMIT)")
ROOT: Final = "00000000-0000-7000-8001-000000000001"

_ID = "('00000000-0000-7000-8000-' || lpad(to_hex({n}), 12, '0'))::uuid"
# Columns that are changed in copies of a row; %(rows)s is how many there will be, n counts them.
_RESULTS = {
    "id": _ID.format(n="n"),
    "name": "'shop.tasks.number_' || n %% 200",
    "queue": "'queue_' || n %% 5",
    "state": "CASE WHEN n %% 100 = 7 THEN 'FAILURE' WHEN n %% 1000 = 8 THEN 'REVOKED' ELSE 'SUCCESS' END",
    "exception": "CASE WHEN n %% 100 = 7 THEN 'ValueError: order ' || n ELSE '' END",
    "root_id": "CASE WHEN n / 1000 %% 10 = 3 THEN " + _ID.format(n="n / 20 * 20 + 1") + " END",
    **{
        column: f"now() - (%(rows)s - n) * interval '1 week' / %(rows)s - interval '{before} seconds'"
        for column, before in (("created_at", 3), ("due_at", 3), ("started_at", 2), ("finished_at", 1))
    },
    "runtime": "n %% 100 / 50.0",
}
_WAITING = {
    "id": _ID.format(n="n"),
    "name": "'shop.tasks.number_' || n %% 200",
    "queue": "'queue_' || n %% 5",
    "due_at": "now() - n * interval '0.1 seconds'",
    "created_at": "now() - n * interval '0.1 seconds'",
}
_LARGE = {
    "id": "('00000000-0000-7000-8001-' || lpad(to_hex(n), 12, '0'))::uuid",
    "name": "'shop.tasks.transform'",
    "root_id": f"'{ROOT}'::uuid",
}


class Page(NamedTuple):
    """A page, and what it may cost at most, if the design says."""

    name: str
    url: str
    #: Milliseconds.
    limit: float | None = None
    queries: int | None = None


class Cost(NamedTuple):
    """What a page costs at best."""

    milliseconds: float
    #: What this process worked for it, which a busy machine does not make more.
    cpu: float
    queries: int
    characters: int


def copied(table: str, columns: Sequence[str], key: Any, changed: dict[str, str], rows: int, total: int) -> None:
    """Insert copies of the row with this key, numbered from 1."""
    from django.db import connection

    values = ", ".join(changed.get(name, name) for name in columns)
    query = (
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values}"  # noqa: S608 - names of our own models only
        f" FROM (SELECT * FROM {table} WHERE id = %(key)s) AS model, generate_series(%(first)s, %(last)s) AS n"
    )
    for first in range(1, rows + 1, CHUNK):
        with connection.cursor() as cursor:
            last = min(first + CHUNK - 1, rows)
            cursor.execute(query, {"key": str(key), "first": first, "last": last, "rows": total})
        print(f"\r{table}: {last:,} of {rows:,} rows", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)


def fill(rows: int) -> None:
    """Make a site that has been busy for a week."""
    from benchmarks.rows import settle
    from django_tasks.models import Task, TaskResult
    from tests.cockpit import site_rows
    from tests.rows import finished, saved, waiting

    site_rows.fill()
    [result], [task] = saved([finished()]), saved([waiting()])
    columns = {model: [str(field.column) for field in model._meta.concrete_fields] for model in (Task, TaskResult)}
    ledger, to_do = TaskResult._meta.db_table, Task._meta.db_table
    copied(ledger, columns[TaskResult], result.pk, _RESULTS, rows, rows)
    copied(ledger, columns[TaskResult], result.pk, _LARGE, LARGE, LARGE)
    copied(to_do, columns[Task], task.pk, _WAITING, max(1, rows // 20), rows)
    settle()


def pages(rows: int) -> list[Page]:
    """Return the pages that are opened, with the budgets of the design."""
    admin = "/admin/django_tasks"
    middle = f"00000000-0000-7000-8000-{rows // 2:012x}"
    return [
        Page("overview", f"{admin}/overview/", 150, 14),
        Page("overview, 30 days", f"{admin}/overview/?span=30d", 150, 14),
        Page("overview.json", f"{admin}/overview/overview.json", 150, 14),
        Page("tasks", f"{admin}/task/", 100, 6),
        Page("tasks, one state", f"{admin}/task/?state=PENDING", 100, 6),
        Page("tasks, far behind", f"{admin}/task/?older=00000000-0000-7000-8000-{rows // 40:012x}", 100, 6),
        Page("results", f"{admin}/taskresult/", 100, 6),
        Page("results, one state", f"{admin}/taskresult/?state=FAILURE", 100, 6),
        Page("results, one task", f"{admin}/taskresult/?name=shop.tasks.number_7", 100, 6),
        Page("results, far behind", f"{admin}/taskresult/?older={{middle}}", 100, 6),
        Page("a result", f"{admin}/taskresult/{middle}/change/", None, 10),
        Page("failures", f"{admin}/taskresult/failures/"),
        Page("queues", f"{admin}/queue/"),
        Page("a queue", f"{admin}/queue/queue_1/change/"),
        Page("task types", f"{admin}/tasktype/"),
        Page("a task type", f"{admin}/tasktype/shop.tasks.number_7/change/"),
        Page("workers", f"{admin}/worker/"),
        Page("workflows", f"{admin}/workflow/", 150),
        Page(f"a workflow of {LARGE:,}", f"{admin}/workflow/{ROOT}/change/", 150),
    ]


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
            began, worked = time.perf_counter(), time.process_time()
            answer = client.get(page.url, headers=headers)
            took, cpu = 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - worked)
        if answer.status_code not in (200, 304):
            raise SystemExit(f"{page.url} answered {answer.status_code}")
        counted = sum(not BESIDE.search(query["sql"]) for query in queries)
        if not unchanged or answer.status_code == 304:  # on a slow machine it is gathered anew after its second
            costs.append(Cost(took, cpu, counted, len(answer.content)))
    if not costs:
        raise SystemExit(f"{page.url} was different each time")
    return min(costs)


def opened(rows: int) -> dict[str, tuple[Page, Cost]]:
    """Open all pages."""
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.force_login(User.objects.create_superuser("anna"))
    found = {}
    for page in pages(rows):
        if "{middle}" in page.url:
            page = page._replace(url=page.url.format(middle=_bookmark(client, rows)))
        found[page.name] = (page, measure(client, page))
    look = Page("overview, unchanged", "/admin/django_tasks/overview/?span=1h&fragment=1", 5, 2)
    found[look.name] = (look, measure(client, look, unchanged=True))
    return found


def _bookmark(client: Any, rows: int) -> str:
    """Return where the page in the middle of the ledger begins, as a link would have it."""
    from urllib.parse import quote

    from django_tasks.models import TaskResult

    row = TaskResult.objects.get(pk=f"00000000-0000-7000-8000-{rows // 2:012x}")
    page = unescape(client.get("/admin/django_tasks/taskresult/").content.decode())
    assert "older=" in page
    return quote(f"{row.finished_at.isoformat()}~{row.pk}")


def main() -> None:
    """Fill, open, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cockpit", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="in the ledger")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    given = parser.parse_args()
    if given.rows < 1_000:
        parser.error("--rows: at least 1,000")
    load = os.getloadavg()[0]
    with servers.started("postgresql") as server:
        os.environ |= {"DATABASE_URL": server.url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0)
        began = time.perf_counter()
        fill(given.rows)
        filled = time.perf_counter() - began
        found = opened(given.rows)
        connections.close_all()
    print(f"{given.rows:,} results, made in {filled:.0f} s; {os.cpu_count()} cores, {platform.machine()},")
    print(f"Python {platform.python_version()}, load before {load:.2f}; best of {TIMES}\n")
    print(f"{'page':<28}{'ms':>8}{'budget':>8}{'CPU ms':>8}{'queries':>9}{'budget':>8}{'kB':>7}")
    for name, (page, cost) in found.items():
        limit = "" if page.limit is None else f"{page.limit:g}"
        queries = "" if page.queries is None else str(page.queries)
        missed = (page.limit is not None and cost.milliseconds > page.limit) or (
            page.queries is not None and cost.queries > page.queries
        )
        said = "  missed" if missed else ""
        size = cost.characters / 1000
        print(
            f"{name:<28}{cost.milliseconds:>8.1f}{limit:>8}{cost.cpu:>8.1f}{cost.queries:>9}{queries:>8}{size:>7.0f}{said}"
        )
    if given.json:
        figures = {name: cost._asdict() for name, (_page, cost) in found.items()}
        given.json.write_text(json.dumps({"rows": given.rows, "load": load, "pages": figures}, indent=1))


if __name__ == "__main__":
    main()
