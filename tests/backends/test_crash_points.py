"""A process dies, or loses its connection, at every statement in turn; nothing is lost and nothing is done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.crash_workload import EFFECTS
from tests.databases import TestDatabase

#: ``CRASH_POINTS=all`` tries every statement with every kind of crash; otherwise each kind at one in so many.
EVERY = 1 if os.environ.get("CRASH_POINTS") == "all" else 10
#: Seconds for the whole enumeration.
TIME_LIMIT = 3_600 if EVERY == 1 else 300


@pytest.mark.timeout(TIME_LIMIT)
@pytest.mark.databases("sqlite", "postgresql")
def test_a_crash_at_any_statement_loses_nothing(database: TestDatabase, tmp_path: Path) -> None:
    """R1, R3, R4, R12, R21, R27, R32: every task has exactly one fate, atomic effects happen exactly once."""
    with database.connection.cursor() as cursor:
        cursor.execute(EFFECTS)
    database.connection.close()
    command = [sys.executable, "-m", "tests.backends.crashing", str(tmp_path), str(EVERY)]
    done = subprocess.run(command, env=database.environ(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole, *strikes = [json.loads(line) for line in done.stdout.splitlines()]
    assert whole["problems"] == []
    assert len(strikes) > 20
    assert [strike for strike in strikes if strike["problems"]] == [], done.stderr
    # A green run without faults proves nothing.
    died = [strike for strike in strikes if strike["died"]]
    assert len(died) > len(strikes) / 2
