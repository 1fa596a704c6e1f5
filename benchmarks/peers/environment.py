"""The peers' own virtual environment, so that none of them is ever a dependency of ours."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

#: Beside the benchmarks; ignored by git.
DIRECTORY = Path(__file__).resolve().parents[2] / ".venv-peers"
#: Each with what its documentation advises for speed.
PACKAGES = (
    "celery[redis]",
    "hiredis",
    "huey[redis]",
    "procrastinate",
    "psycopg[binary,pool]",
    "pgqueuer",
    "asyncpg",
    "uvloop",
)


def python() -> str:
    """Return the interpreter of the peers' environment; make the environment first if it is not there, from PyPI."""
    interpreter = DIRECTORY / "bin" / "python"
    if not interpreter.exists():
        print(f"Installing {', '.join(PACKAGES)} into {DIRECTORY.name} …", file=sys.stderr)
        venv.create(DIRECTORY, with_pip=True)
        install = [str(interpreter), "-m", "pip", "install", "--quiet", *PACKAGES]
        subprocess.run(install, check=True)
    return str(interpreter)
