"""One Python interpreter: runs blocks of code that come as JSON lines on stdin, in one namespace, with Django set up.

Each line is ``{"language": "python" or "pycon", "text": …, "page": …, "line": …, "varies": …}``; each answer is
``{"failure": …}``, empty when the block went well.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import json
import os
import sys
import traceback
from typing import Any

import django


class AnyOutput(doctest.OutputChecker):
    """Accepts every output; an exception that is not shown is a failure all the same."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return True


def run(namespace: dict[str, Any], *, language: str, text: str, page: str, line: int, varies: bool) -> str:
    """Run a block; return what went wrong. ``varies``: whatever it prints is right."""
    if language == "pycon":
        return run_doctest(namespace, text=text, page=page, line=line, checker=AnyOutput() if varies else None)
    try:
        # The empty lines let tracebacks name the line of the page.
        source = "\n" * (line - 1) + text
        code = compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        outcome = eval(code, namespace)  # noqa: S307 - this is what it is for
        if inspect.iscoroutine(outcome):
            asyncio.run(outcome)
    except BaseException:
        return traceback.format_exc()
    return ""


def run_doctest(
    namespace: dict[str, Any], *, text: str, page: str, line: int, checker: doctest.OutputChecker | None
) -> str:
    """Run the examples of a block; return those whose output was another one."""
    test = doctest.DocTestParser().get_doctest(text, {}, page, page, line - 1)
    test.globs = namespace
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(checker, verbose=False, optionflags=flags)
    report: list[str] = []
    runner.run(test, out=report.append, clear_globs=False)
    return "".join(report)


def main() -> None:
    """Answer blocks until stdin ends."""
    # What blocks print, and the programs which they start, goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    django.setup()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for request in sys.stdin:
        print(json.dumps({"failure": run(namespace, **json.loads(request))}), file=answers, flush=True)


if __name__ == "__main__":
    main()
