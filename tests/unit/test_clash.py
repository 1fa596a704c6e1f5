from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import django_tasks
from django_tasks.clash import DISTRIBUTION, ensure_ours, find_clash

PACKAGE = Path(django_tasks.__file__).parent


def install(site: Path, name: str, files: dict[str, str]) -> None:
    """Do what pip does: write the files over whatever is there, and a RECORD of them."""
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    record = []
    for file, content in {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"}.items():
        path = site / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{file},sha256={digest},{len(content)}")
    record.append(f"{info}/RECORD,,")
    (site / info / "RECORD").write_text("\n".join(record) + "\n")


def uninstall(site: Path, name: str) -> None:
    """Do what pip does: remove what RECORD lists, whoever wrote it."""
    [record] = site.glob(f"{name.replace('-', '_')}-*.dist-info/RECORD")
    for line in record.read_text().splitlines():
        (site / line.split(",")[0]).unlink(missing_ok=True)
    shutil.rmtree(record.parent, ignore_errors=True)


OURS = {"django_tasks/__init__.py": "__distribution__ = 'django-workbeat'\n", "django_tasks/clash.py": "# ours\n",
        "django_tasks/base.py": "# ours\n"}  # fmt: skip
THEIRS = {"django_tasks/__init__.py": "# theirs\n", "django_tasks/base.py": "# theirs\n",
          "django_tasks/compat.py": "# theirs\n"}  # fmt: skip


def test_the_package_of_these_tests_is_ours() -> None:
    ensure_ours()


def test_alone_all_is_well(tmp_path: Path) -> None:
    install(tmp_path, DISTRIBUTION, OURS)
    install(tmp_path, "unrelated", {"unrelated/django_tasks/x.py": "", "other.py": ""})
    assert find_clash([str(tmp_path)]) == []


def test_installed_last_we_are_intact_and_warn(tmp_path: Path) -> None:
    install(tmp_path, "django-tasks", THEIRS)
    install(tmp_path, DISTRIBUTION, OURS)
    [problem] = find_clash([str(tmp_path)])
    assert not problem.overwritten
    assert problem.other == "django-tasks"
    assert problem.files == ()
    assert "the files of 'django-workbeat' are intact" in problem.message
    assert "Uninstall 'django-tasks'" in problem.hint


def test_installed_first_we_are_overwritten_and_name_the_files(tmp_path: Path) -> None:
    install(tmp_path, DISTRIBUTION, OURS)
    install(tmp_path, "django-tasks", THEIRS)
    [problem] = find_clash([str(tmp_path), str(tmp_path)])
    assert problem.overwritten
    assert problem.files == ("django_tasks/__init__.py", "django_tasks/base.py")
    assert "'django-tasks' has overwritten 2 files of 'django-workbeat'" in problem.message
    assert problem.hint == (
        "Run: pip uninstall django-tasks && pip install --force-reinstall --no-deps django-workbeat"
    )


def test_uninstalling_the_other_takes_shared_files_along(tmp_path: Path) -> None:
    install(tmp_path, DISTRIBUTION, OURS)
    install(tmp_path, "Django_Tasks", THEIRS)
    uninstall(tmp_path, "Django_Tasks")
    [problem] = find_clash([str(tmp_path)])
    assert problem.overwritten
    assert problem.other == ""
    assert problem.files == ("django_tasks/__init__.py", "django_tasks/base.py")
    assert problem.hint == "Run: pip install --force-reinstall --no-deps django-workbeat"


def test_a_file_changed_by_hand_is_nobodys_business(tmp_path: Path) -> None:
    install(tmp_path, DISTRIBUTION, OURS)
    (tmp_path / "django_tasks" / "base.py").write_text("# patched\n")
    assert find_clash([str(tmp_path)]) == []


def test_an_editable_install_sees_its_neighbour(tmp_path: Path) -> None:
    install(tmp_path, DISTRIBUTION, {"_django_workbeat.pth": "/somewhere\n"})
    install(tmp_path, "django-tasks", THEIRS)
    [problem] = find_clash([str(tmp_path)])
    assert (problem.overwritten, problem.other) == (False, "django-tasks")


def test_a_distribution_without_a_record_does_no_harm(tmp_path: Path) -> None:
    install(tmp_path, DISTRIBUTION, OURS)
    (tmp_path / "bare-1.0.dist-info").mkdir()
    (tmp_path / "broken-1.0.dist-info").mkdir()
    (tmp_path / "broken-1.0.dist-info" / "METADATA").write_text("")
    assert find_clash([str(tmp_path)]) == []


def start_django(site: Path) -> subprocess.CompletedProcess[str]:
    program = (
        # An editable install of ours, as CI has it, would step in for a package that lacks its __init__.
        "import os, sys\n"
        "ours = [p for p in sys.path if not p or os.path.isfile(os.path.join(p, 'django_tasks', '__init__.py'))]\n"
        "sys.path = [sys.argv[1], *(p for p in sys.path if p not in ours)]\n"
        "import django; from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['django_tasks'], SECRET_KEY='x')\n"
        "django.setup()\n"
    )
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(site)], cwd=site, capture_output=True, text=True, timeout=60
    )


def our_files() -> dict[str, str]:
    return {
        f"django_tasks/{file.relative_to(PACKAGE).as_posix()}": file.read_text()
        for file in PACKAGE.rglob("*")
        if file.suffix in (".py", ".sql", ".lua") or file.name == "py.typed"
    }


@pytest.mark.parametrize("how", ["overwritten", "removed"])
def test_django_does_not_start_without_our_init_and_says_why(tmp_path: Path, how: str) -> None:
    install(tmp_path, DISTRIBUTION, our_files())
    if how == "overwritten":
        install(tmp_path, "django-tasks", THEIRS)
    else:
        (tmp_path / "django_tasks" / "__init__.py").unlink()
    done = start_django(tmp_path)
    assert done.returncode == 1
    assert "ImproperlyConfigured: The import package 'django_tasks' of 'django-workbeat' was overwritten" in done.stderr
    assert "pip uninstall django-tasks && pip install --force-reinstall --no-deps django-workbeat" in done.stderr


def test_the_real_django_tasks_is_found_out(tmp_path: Path) -> None:
    """With the distribution from PyPI, installed by pip."""
    theirs = tmp_path / "theirs"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--retries", "0", "--timeout", "10"]
    wanted = ["django-tasks", "django-stubs-ext", "typing-extensions"]
    try:
        subprocess.run([*command, "--target", str(theirs), *wanted], check=True, capture_output=True, timeout=60)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("django-tasks cannot be installed from here")
    site = tmp_path / "site"
    install(site, DISTRIBUTION, our_files())
    shutil.copytree(theirs, site, dirs_exist_ok=True)
    [problem] = find_clash([str(site)])
    assert problem.overwritten
    assert problem.other == "django-tasks"
    assert "django_tasks/__init__.py" in problem.files
    done = start_django(site)
    assert done.returncode == 1
    assert "ImproperlyConfigured: The import package" in done.stderr
    assert "pip uninstall django-tasks" in done.stderr
    install(site, DISTRIBUTION, our_files())
    [problem] = find_clash([str(site)])
    assert not problem.overwritten
