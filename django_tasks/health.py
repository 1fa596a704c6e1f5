"""Is a worker alive, by the file that it touches? ``python -m django_tasks.health FILE [--max-age SECONDS]``.

For a probe that runs every few seconds: it loads neither Django nor the site, and takes some milliseconds.
``runworker --health-file FILE`` touches the file about once a second, as long as its loops really turn.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

#: Seconds after which a file counts as stale, unless told otherwise.
MAX_AGE = 30.0


def problem_of(path: str | Path, max_age: float = MAX_AGE) -> str | None:
    """Return what is wrong with the worker that touches this file; ``None`` if nothing is."""
    try:
        age = time.time() - Path(path).stat().st_mtime
    except FileNotFoundError:
        return f"{path} is not there: the worker has not started, or has ended."
    except OSError as error:
        return f"{path} cannot be looked at: {error.strerror}."
    if age > max_age:
        return f"{path} was touched {age:.0f} s ago, more than {max_age:g}: the worker is stalled, or was killed."
    return None


def seconds(text: str) -> float:
    """Read a number of seconds above 0 from a command line."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a number of seconds above 0")
    return value


def main(line: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 the worker is alive, 1 it is not (standard error says why), 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m django_tasks.health", description="Is a worker alive?")
    parser.add_argument("file", metavar="FILE", help="what runworker --health-file names")
    parser.add_argument("--max-age", type=seconds, default=MAX_AGE, metavar="SECONDS", help="default: %(default)g")
    given = parser.parse_args(line)
    problem = problem_of(given.file, given.max_age)
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
