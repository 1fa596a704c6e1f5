"""The wheel and the sdist hold what they should and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import django_tasks

ROOT = Path(__file__).resolve().parents[2]
#: What runs of tests and tools leave in a checkout.
LEFT_OVERS = ("__pycache__", ".pyc", ".venv", ".cache", ".sqlite3", "_build/", ".git/")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of a wheel and an sdist: those in ``DIST``, else new ones from this checkout."""
    if given := os.environ.get("DIST"):
        return Path(given)
    directory = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(directory)], cwd=ROOT, check=True)
    return directory


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> zipfile.ZipFile:
    """Give the wheel, which serves every Python and system."""
    [path] = distributions.glob(f"django_workbeat-{django_tasks.__version__}-py3-none-any.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def sdist_names(distributions: Path) -> set[str]:
    """Give the names in the sdist, without its top directory."""
    [path] = distributions.glob(f"django_workbeat-{django_tasks.__version__}.tar.gz")
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    """Give the metadata that installers read."""
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_bytes(wheel.read(name))


def files_of_the_package() -> set[str]:
    files = (path for path in (ROOT / "django_tasks").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == files_of_the_package()
    assert "django_tasks/py.typed" in names


def test_the_sdist_holds_what_is_needed_to_build_test_and_document(sdist_names: set[str]) -> None:
    assert files_of_the_package() <= sdist_names
    wanted = {"pyproject.toml", "Makefile", "LICENSE", "README.md", "CHANGELOG.md", "docs/conf.py", "tests/settings.py"}
    assert wanted <= sdist_names
    assert [name for name in sdist_names if any(left_over in name for left_over in LEFT_OVERS)] == []


def test_the_metadata_names_the_package_its_licence_and_its_needs(metadata: Message) -> None:
    assert metadata["Name"] == "django-workbeat"
    assert metadata["Version"] == django_tasks.__version__
    assert metadata["Import-Name"] == "django_tasks"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Requires-Python"] == ">=3.11"
    required = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert required == ["django<6.2,>=5.2"]


def test_the_migrations_and_commands_are_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "django_tasks/migrations/0001_initial.py" in names
    assert "django_tasks/management/commands/runworker.py" in names


def test_pytest_finds_the_plugin_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    found = ConfigParser()
    found.read_string(wheel.read(name).decode())
    assert dict(found["pytest11"]) == {"django_tasks": "django_tasks.testing.plugin"}
