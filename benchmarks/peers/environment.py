"""The peers' own virtual environments, so that none of them is ever a dependency of ours, or of another one."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import venv
from pathlib import Path

#: One for each library, beside the benchmarks; ignored by git.
DIRECTORY = Path(__file__).resolve().parents[2] / ".venv-peers"
#: By library, with what its documentation advises for speed.
PACKAGES = {
    "celery": ("celery[redis]", "hiredis"),
    "huey": ("huey[redis]", "hiredis"),
    "dramatiq": ("dramatiq[redis]", "hiredis"),
    "rq": ("rq", "hiredis"),
    "taskiq": ("taskiq", "taskiq-redis", "hiredis", "uvloop"),
    "procrastinate": ("procrastinate", "psycopg[binary,pool]"),
    "pgqueuer": ("pgqueuer", "asyncpg", "psycopg[binary]", "uvloop"),
}


class PeerMissing(RuntimeError):
    """A peer cannot be installed here."""

    def __init__(self, library: str, reason: str) -> None:
        super().__init__(f"{library} cannot be installed: {reason}")


@functools.cache
def python(library: str) -> str:
    """Return the interpreter of a library's environment; make the environment first if it is not there, from PyPI.

    Raises PeerMissing when that fails.
    """
    directory, packages = DIRECTORY / library, PACKAGES[library]
    interpreter = directory / "bin" / "python"
    complete = directory / "installed.txt"
    if not complete.exists() or complete.read_text().split() != list(packages):
        print(f"Installing {', '.join(packages)} into {DIRECTORY.name}/{library} …", file=sys.stderr)
        shutil.rmtree(directory, ignore_errors=True)
        venv.create(directory, with_pip=True)
        install = [str(interpreter), "-m", "pip", "install", "--quiet", *packages]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
            raise PeerMissing(library, lines[-1] if lines else f"pip ended with {done.returncode}")
        complete.write_text("\n".join(packages))
    return str(interpreter)
