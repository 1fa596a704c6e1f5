"""Survive another distribution which installs the same import package.

PyPI's ``django-tasks`` installs ``django_tasks``, too; pip and uv let the later one overwrite the earlier one's files
without a word, and uninstalling either takes the shared files along. This module stands outside the shared files and
imports nothing of ours, so it can tell what happened whoever came last.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackagePath, distributions
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
    owners = list(_owners(path))
    ours = next((owner for owner in owners if _name(owner) == DISTRIBUTION), None)
    others = [owner for owner in owners if _name(owner) != DISTRIBUTION]
    changed = {str(file) for file in _files(ours) if not _is_intact(file)} if ours is not None else set()
    problems = [_meet(other, changed) for other in others]
    orphaned = sorted(file for file in changed if not _exists(ours, file) and not _is_claimed(file, others))
    if orphaned:
        problems.append(
            Problem(
                overwritten=True,
                message=f"{len(orphaned)} files of {DISTRIBUTION!r} are missing, {orphaned[0]} among them: "
                f"another distribution of the import package {PACKAGE!r} was uninstalled and took them along.",
                hint=f"Run: pip install --force-reinstall --no-deps {DISTRIBUTION}",
                files=tuple(orphaned),
            )
        )
    return sorted(problems, key=lambda problem: not problem.overwritten)


def _meet(other: Distribution, changed: set[str]) -> Problem:
    name = _name(other)
    files = tuple(sorted(changed & {str(file) for file in _files(other)}))
    if files:
        return Problem(
            overwritten=True,
            message=f"{name!r} has overwritten {len(files)} files of {DISTRIBUTION!r}, {files[0]} among them: "
            f"both install the import package {PACKAGE!r}.",
            hint=f"Run: {_CURE.format(other=name)}",
            other=name,
            files=files,
        )
    return Problem(
        overwritten=False,
        message=f"{name!r} is installed beside {DISTRIBUTION!r} and has the same import package {PACKAGE!r}; "
        f"the files of {DISTRIBUTION!r} are intact.",
        hint=f"Uninstall {name!r}, or install {DISTRIBUTION!r} after it: the next installation decides who wins.",
        other=name,
    )


def _owners(path: Sequence[str] | None) -> Iterator[Distribution]:
    seen: set[str] = set()
    for distribution in distributions(path=list(sys.path if path is None else path)):
        record = distribution.read_text("RECORD") or distribution.read_text("installed-files.txt") or ""
        if f"{PACKAGE}/" not in record and _name(distribution) != DISTRIBUTION:
            continue
        # The same directory may stand twice on the path; the first one is what Python imports.
        if _name(distribution) not in seen and (_files(distribution) or _name(distribution) == DISTRIBUTION):
            seen.add(_name(distribution))
            yield distribution


def _files(distribution: Distribution) -> list[PackagePath]:
    return [file for file in distribution.files or () if file.parts[0] == PACKAGE and file.suffix != ".pyc"]


def _is_intact(file: PackagePath) -> bool:
    if file.hash is None:
        return True  # nothing to compare with
    try:
        content = Path(str(file.locate())).read_bytes()
    except OSError:
        return False
    digest = hashlib.new(file.hash.mode, content, usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value


def _exists(distribution: Distribution | None, file: str) -> bool:
    return distribution is not None and Path(str(distribution.locate_file(file))).exists()


def _is_claimed(file: str, others: list[Distribution]) -> bool:
    return any(file == str(claimed) for other in others for claimed in _files(other))


def _name(distribution: Distribution) -> str:
    return (distribution.metadata["Name"] or "").lower().replace("_", "-").replace(".", "-")
