"""Where the time goes: a sampled profile of the worker's Python, and what PostgreSQL spent on each statement.

Needs `py-spy <https://github.com/benfred/py-spy>`_ beside the interpreter or on PATH.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.contestant import Contestant
from benchmarks.processes import running
from benchmarks.servers import Server
from benchmarks.subjects import RUN_TIMEOUT, WARM_UP

#: Samples a second of each worker process.
RATE = 500
LINES = 25

_STATEMENTS = """
SELECT round(total_exec_time)::float8, calls, rows, left(regexp_replace(query, '\\s+', ' ', 'g'), 160)
FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 8
"""


def profile(contestant: Contestant, server: Server, *, tasks: int) -> dict[str, Any]:
    """Sample a worker while it runs no-op tasks; return lines for people under ``python`` and ``sql``.

    Raises FileNotFoundError when py-spy is not installed.
    """
    contestant.prepare()
    sent = contestant.send_many(tasks)
    database = _Statements(server.url) if server.url.startswith("postgresql:") else None
    with running(contestant.workers()) as workers, tempfile.NamedTemporaryFile("r") as samples:
        start, end = sent[int(tasks * WARM_UP)], sent[int(tasks * 0.95)]
        workers.wait_until(lambda: contestant.is_done(start), "the first tenth", timeout=RUN_TIMEOUT)
        if database:
            database.begin()
        [root] = workers.pids
        spy = subprocess.Popen([_py_spy(), *_options(root, samples.name)], stdout=subprocess.DEVNULL)
        workers.wait_until(lambda: contestant.is_done(end), f"{tasks} tasks", timeout=RUN_TIMEOUT)
        spy.send_signal(signal.SIGINT)
        spy.wait(30)
        found = {"python": table(samples)}
    if database:
        found["sql"] = database.end()
    return found


def table(samples: Iterable[str]) -> list[str]:
    """Return the functions with most samples of their own, and with most in all that they call, in percent."""
    own: Counter[str] = Counter()
    everything: Counter[str] = Counter()
    for line in samples:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        own[frames[-1]] += int(count)
        everything.update(dict.fromkeys(frames, int(count)))
    total = own.total() or 1
    lines = [f"{total} samples at {RATE} a second and process", "", " own %  function"]
    lines += [f"{count / total * 100:6.1f}  {name}" for name, count in own.most_common(LINES)]
    lines += ["", " all %  function, with all that it calls"]
    return lines + [f"{count / total * 100:6.1f}  {name}" for name, count in everything.most_common(LINES)]


def _py_spy() -> str:
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if not found:
        raise FileNotFoundError("py-spy is not installed: pip install py-spy")
    return found


def _options(pid: int, output: str) -> list[str]:
    options = ["--pid", str(pid), "--subprocesses", "--rate", str(RATE), "--format", "raw", "--function"]
    return ["record", *options, "--output", output, "--duration", str(int(RUN_TIMEOUT))]


class _Statements:
    """The server's own book-keeping, where its contrib modules are installed."""

    def __init__(self, url: str) -> None:
        import psycopg

        self.connection = psycopg.connect(url, autocommit=True)
        self.connection.execute("CREATE EXTENSION pg_stat_statements")

    def begin(self) -> None:
        self.connection.execute("SELECT pg_stat_statements_reset()")

    def end(self) -> list[str]:
        rows = self.connection.execute(_STATEMENTS).fetchall()
        return [
            "    ms  calls    rows  statement",
            *(f"{ms:6.0f} {calls:6} {n:7}  {query}" for ms, calls, n, query in rows),
        ]
