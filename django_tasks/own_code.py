"""The project's own code in a traceback: what is a library's, and where in the project an error came up.

That place stands in front of the stored data of an error, so that the first characters of many tell where they are
from.
"""

from __future__ import annotations

import json
import os
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple, Self

#: What the data of an error begin with if there is such a place; then come file, function and line.
KEY: Final = "frame"
#: Characters of stored data that hold the place.
HEAD: Final = 256

_OURS: Final = f"{Path(__file__).parent}{os.sep}"
#: Files that a project installs or that come with Python, wherever the worker has them.
_LIBRARY: Final = re.compile(
    r"[\\/](?:site|dist)-packages[\\/]|[\\/]lib[\\/]python[\d.]+[\\/]|[\\/]Python\d+[\\/]Lib[\\/]|^<frozen "
)
#: What no name of a file or a function needs, and JSON or a search would have to escape.
_ODD: Final = re.compile(r"[^\w./<>+ -]")
_FILE, _FUNCTION = 150, 60
_DECODER: Final = json.JSONDecoder()
_BEGINNING: Final = f'{{"{KEY}":['
#: Errors behind an error that are looked through.
_CAUSES: Final = 5


def is_library(file: str) -> bool:
    """Is this the file of a library, by its whole path?"""
    return _LIBRARY.search(file) is not None


class Place(NamedTuple):
    """A line of the project."""

    #: Below the folder that it is imported from, as ``shop/mail.py``.
    file: str
    function: str
    line: int

    @classmethod
    def of(cls, error: BaseException) -> Place | None:
        """Return where an error came up: the project's last frame, or that of what caused it; ``None`` if none is the
        project's."""
        cause: BaseException | None = error
        for _ in range(_CAUSES):
            if cause is None:
                break
            if (found := cls._last(cause)) is not None:
                return found
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        return None

    @classmethod
    def _last(cls, error: BaseException) -> Self | None:
        found, frame = None, error.__traceback__
        while frame is not None:
            if _shown(frame.tb_frame.f_code.co_filename):
                found = frame
            frame = frame.tb_next
        if found is None:
            return None
        code = found.tb_frame.f_code
        return cls(_shown(code.co_filename), _ODD.sub("_", code.co_name)[:_FUNCTION], found.tb_lineno)

    @classmethod
    def read(cls, head: str | None) -> Place | None:
        """Return the place that the first :data:`HEAD` characters of stored data tell; ``None`` if they tell none."""
        if head is None or not head.startswith(_BEGINNING):
            return None
        try:
            match _DECODER.raw_decode(head, len(_BEGINNING) - 1)[0]:
                case [str(file), str(function), int(line)]:
                    return cls(file, function, line)
        except ValueError:
            pass
        return None

    @property
    def name(self) -> str:
        """What stays the same when lines above it come and go: ``shop/mail.py in send``."""
        return f"{self.file} in {self.function}"

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def beginning(name: str) -> str:
    """Return what the stored data of the errors from the place of this name begin with; ``""``: of those from any."""
    if not name:
        return _BEGINNING
    file, _in, function = name.rpartition(" in ")
    return f"{_BEGINNING}{json.dumps(file, ensure_ascii=False)},{json.dumps(function, ensure_ascii=False)},"


@lru_cache(maxsize=1_000)
def _shown(file: str) -> str:
    """Return what a file of the project is called; ``""`` for any other file."""
    if file.startswith(("<", _OURS)) or is_library(file):
        return ""
    folders = [os.path.join(os.path.abspath(folder), "") for folder in sys.path]
    known = max((folder for folder in folders if file.startswith(folder)), key=len, default="")
    return _ODD.sub("_", file.removeprefix(known).replace(os.sep, "/"))[-_FILE:]
