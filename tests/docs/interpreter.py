"""One Python interpreter: runs blocks of code that come as JSON lines on stdin, in one namespace, with Django set up.

Each line is ``{"language": "python" or "pycon", "text": …, "page": …, "line": …}``; each answer is ``{"failure": …}``,
empty when the block went well.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import json
import sys
import traceback
from typing import Any

import django


def run(namespace: dict[str, Any], *, language: str, text: str, page: str, line: int) -> str:
    """Run a block; return what went wrong."""
    if language == "pycon":
        return run_doctest(namespace, text=text, page=page, line=line)
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


def run_doctest(namespace: dict[str, Any], *, text: str, page: str, line: int) -> str:
    """Run the examples of a block; return those whose output was another one."""
    test = doctest.DocTestParser().get_doctest(text, {}, page, page, line - 1)
    test.globs = namespace
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    runner.run(test, out=report.append, clear_globs=False)
    return "".join(report)


def main() -> None:
    """Answer blocks until stdin ends."""
    answers, sys.stdout = sys.stdout, sys.stderr
    django.setup()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for request in sys.stdin:
        print(json.dumps({"failure": run(namespace, **json.loads(request))}), file=answers, flush=True)


if __name__ == "__main__":
    main()
