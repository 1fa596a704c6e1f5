"""``manage.py tasks`` in this process, and as a command of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.databases import TestDatabase

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Said:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The one JSON document that it printed."""
        return json.loads(self.out)


Command = Callable[..., Said]


@pytest.fixture
def tasks(database: TestDatabase) -> Command:
    """Give ``tasks("list", "--json")``: the command, run in this process."""

    def run(*words: object) -> Said:
        out, err = StringIO(), StringIO()
        code = 0
        try:
            call_command("tasks", *map(str, words), stdout=out, stderr=err)
        except SystemExit as ended:
            code = int(ended.code or 0)
        except CommandError as error:
            # Wrong usage of arguments ends with 2 when a person calls it, and is raised without a code to a program.
            code = error.returncode
            err.write(str(error))
        return Said(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def manage(database: TestDatabase) -> Callable[..., Said]:
    """Give ``manage("tasks", "list")``: a process of its own."""

    def run(*words: object, **tasks_settings: object) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "tests.manage", *map(str, words)],
            cwd=ROOT,
            env=database.environ(**tasks_settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run
