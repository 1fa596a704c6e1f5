"""Find the code blocks of a Markdown page."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

FENCE = re.compile(r"^\s*(?P<fence>```+|~~~+)\s*(?:\{code-block\}\s*)?(?P<language>[\w+-]*)\s*$")
NOT_RUN = re.compile(r"^\s*<!-- not run: \S.* -->$")
VARIES = re.compile(r"^\s*<!-- output varies: \S.* -->$")
OPTION = re.compile(r"^\s*:(?P<name>[\w-]+):\s*(?P<value>.*?)\s*$")
FILE = re.compile(r"(?:# )?(?P<path>[\w./-]+\.\w+)")
RUNNABLE = {"python", "pycon", "console"}


@dataclass(frozen=True)
class Block:
    """A fenced block in a language that can be run."""

    language: str
    text: str
    #: The line of the page on which the text begins, counted from 1.
    line: int

    #: The file which the block shows: named by its first line, ``# shop/tasks.py``, or by its caption.
    file: Path | None = None
    #: The output is an example: it depends on the moment or on the machine.
    varies: bool = False


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page that are to be run, from top to bottom."""
    lines = page.read_text(encoding="utf-8").splitlines()
    said_before = ""
    numbered = enumerate(lines, start=1)
    for number, line in numbered:
        if opening := FENCE.match(line):
            body = []
            for _, inner in numbered:
                if inner.strip() == opening["fence"]:
                    break
                body.append(inner)
            if opening["language"] in RUNNABLE and not NOT_RUN.match(said_before):
                block = _block(opening["language"], body, number + 1)
                yield replace(block, varies=bool(VARIES.match(said_before)))
        if line.strip():
            said_before = line


def _block(language: str, body: list[str], line: int) -> Block:
    caption = ""
    while body and (option := OPTION.match(body[0])):  # of the directive code-block
        if option["name"] == "caption":
            caption = option["value"]
        body, line = body[1:], line + 1
    text = textwrap.dedent("\n".join(body)) + "\n"
    shown = FILE.fullmatch(caption)
    if not shown and text.lstrip().startswith("# "):
        shown = FILE.fullmatch(text.lstrip().partition("\n")[0])
    return Block(language, text, line, Path(shown["path"]) if shown and language == "python" else None)
