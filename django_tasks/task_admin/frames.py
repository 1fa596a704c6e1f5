"""Tracebacks, taken apart so that what the project itself wrote stands out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from .. import own_code

#: The line that begins a frame; in a group of exceptions there is a margin of bars in front.
_FRAME: Final = re.compile(r'(?P<margin>[ |+]*?)  File "(?P<file>[^"]*)", line \d+')


@dataclass(frozen=True, slots=True)
class Part:
    """Some lines of a traceback that follow each other."""

    text: str
    #: How many frames of libraries they are; 0 for all else, which is what to look at.
    library_frames: int = 0


def parts(traceback: str) -> list[Part]:
    """Return a traceback in parts, in order; in one part if nothing of it is the project's."""
    found: list[tuple[bool, bool, str]] = []  # of a library's frame, begins a frame, the line
    margin: str | None = None
    is_library = has_own = False
    for line in traceback.splitlines():
        begins = _FRAME.match(line)
        if begins is not None:
            margin, is_library = begins["margin"], own_code.is_library(begins["file"])
            has_own |= not is_library
        elif margin is not None and not line.startswith((f"{margin}    ", f"{margin}  [Previous line")):
            margin, is_library = None, False
        found.append((is_library, begins is not None, line))
    if not has_own:
        return [Part(traceback)] if traceback else []
    grouped = (list(lines) for _library, lines in groupby(found, lambda one: one[0]))
    return [
        Part(
            "\n".join(line for _library, _begins, line in lines),
            sum(library and begins for library, begins, _ in lines),
        )
        for lines in grouped
    ]
