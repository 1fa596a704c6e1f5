"""What a site hears whose settings are wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", [["check"], ["runworker", "--burst"], ["tasks", "doctor"]], ids=" ".join)
def test_a_wrong_setting_is_told_by_every_command_in_one_line_instead_of_a_traceback(command: list[str]) -> None:
    """R31: by its name, with what was meant, and exit code 1."""
    environ = {**os.environ, "TEST_DJANGO_TASKS": '{"WORKER_CONCURENCY": 3}'}
    done = subprocess.run(
        [sys.executable, "-m", "tests.manage", *command], env=environ, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert "DJANGO_TASKS has no setting 'WORKER_CONCURENCY'. Did you mean 'WORKER_CONCURRENCY'?" in said
    assert "Traceback" not in said
    assert done.returncode == 1
