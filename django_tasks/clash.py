"""Survive another distribution which installs the same import package.

PyPI's ``django-tasks`` installs ``django_tasks``, too; pip and uv let the later one overwrite the earlier one's files
without a word, and uninstalling either takes the shared files along. This module stands outside the shared files and
imports nothing of ours, so it can tell what happened whoever came last.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

__all__ = ["DISTRIBUTION", "PACKAGE", "Problem", "ensure_ours", "find_clash"]

#: Our name on PyPI.
DISTRIBUTION = "django-workbeat"
#: The import package that we share with others.
PACKAGE = "django_tasks"

_CURE = f"pip uninstall {{other}} && pip install --force-reinstall --no-deps {DISTRIBUTION}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the installed files of ``django_tasks``."""

    #: True when files of ours are not ours any more; false when the other distribution is there and ours is intact.
    overwritten: bool
    #: What is wrong, in one sentence.
    message: str
    #: What to do.
    hint: str
    #: The other distribution's name, ``""`` when it has gone again.
    other: str = ""
    #: Our files that were replaced or removed, relative to ``site-packages``.
    files: tuple[str, ...] = ()


def ensure_ours() -> None:
    """Return if the package that Python imports as ``django_tasks`` is ours.

    Raises ``ImproperlyConfigured``, with the cure, when another distribution overwrote or removed our ``__init__.py``.
    """
    found = getattr(sys.modules[PACKAGE], "__distribution__", None)
    if found == DISTRIBUTION:
        return
    owner = f"the distribution {found!r}" if found else "another distribution, most likely 'django-tasks'"
    raise ImproperlyConfigured(
        f"The import package {PACKAGE!r} of {DISTRIBUTION!r} was overwritten by {owner}. "
        f"Both cannot be installed together. Run: {_CURE.format(other=found or 'django-tasks')}"
    )


def find_clash(path: Sequence[str] | None = None) -> list[Problem]:
    """Return what is wrong with the installed ``django_tasks``, worst first; ``[]`` when all is well.

    ``path`` lists the directories in which distributions are looked for; ``None`` means ``sys.path``. Reads the
    metadata of every distribution and hashes our own files, so it is for system checks, not for every start. An
    editable install has no list of files and can only be told by its neighbours.
    """
    ours: _Owner | None = None
    others: list[_Owner] = []
    for owner in _owners(path):
        if owner.name == DISTRIBUTION:
            ours = owner
        else:
            others.append(owner)
    changed = ours.changed() if ours is not None else {}
    problems = [_meet(other, changed) for other in others]
    claimed = {file for other in others for file in other.hashes}
    orphaned = tuple(sorted(file for file, is_there in changed.items() if not is_there and file not in claimed))
    if orphaned:
        problems.append(
            Problem(
                overwritten=True,
                message=f"{len(orphaned)} files of {DISTRIBUTION!r} are missing, {orphaned[0]} among them: "
                f"another distribution of the import package {PACKAGE!r} was uninstalled and took them along.",
                hint=f"Run: pip install --force-reinstall --no-deps {DISTRIBUTION}",
                files=orphaned,
            )
        )
    return sorted(problems, key=lambda problem: not problem.overwritten)


def _meet(other: _Owner, changed: Mapping[str, bool]) -> Problem:
    files = tuple(sorted(changed.keys() & other.hashes.keys()))
    if files:
        return Problem(
            overwritten=True,
            message=f"{other.name!r} has overwritten {len(files)} files of {DISTRIBUTION!r}, {files[0]} among them: "
            f"both install the import package {PACKAGE!r}.",
            hint=f"Run: {_CURE.format(other=other.name)}",
            other=other.name,
            files=files,
        )
    return Problem(
        overwritten=False,
        message=f"{other.name!r} is installed beside {DISTRIBUTION!r} and has the same import package {PACKAGE!r}; "
        f"the files of {DISTRIBUTION!r} are intact.",
        hint=f"Uninstall {other.name!r}, or install {DISTRIBUTION!r} after it: the next installation decides who wins.",
        other=other.name,
    )


class _Owner:
    """A distribution that installs files of the package; ``hashes`` are theirs, as RECORD tells them."""

    def __init__(self, distribution: Distribution) -> None:
        self.name = re.sub(r"[-_.]+", "-", distribution.metadata.get("Name", "")).lower()
        self.hashes: dict[str, str] = {}
        self._distribution = distribution
        # Not ``distribution.files``, which leaves out what is not there any more.
        record = distribution.read_text("RECORD") or ""
        if f"{PACKAGE}/" in record:
            for file, digest, *_ in csv.reader(record.splitlines()):
                if file.startswith(f"{PACKAGE}/") and not file.endswith(".pyc"):
                    self.hashes[file] = digest

    def changed(self) -> dict[str, bool]:
        """Return the files that are not as they were installed, and whether they are there at all."""
        changed = {}
        for file, digest in self.hashes.items():
            try:
                content = Path(str(self._distribution.locate_file(file))).read_bytes()
            except OSError:
                changed[file] = False
                continue
            found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            if digest.startswith("sha256=") and digest != f"sha256={found}":
                changed[file] = True
        return changed


def _owners(path: Sequence[str] | None) -> Iterator[_Owner]:
    seen: set[str] = set()
    for distribution in distributions(path=list(sys.path if path is None else path)):
        owner = _Owner(distribution)
        # The same directory may stand twice on the path; the first one is what Python imports.
        if owner.name not in seen and (owner.hashes or owner.name == DISTRIBUTION):
            seen.add(owner.name)
            yield owner
