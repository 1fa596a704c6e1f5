"""A scratch project in which the blocks of one page run, one after the other."""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.docs.blocks import Block
from tests.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
#: Serves until it is told to stop, and looks the same whatever the page says: known to exist, not started.
CHECKED_ONLY = {"runserver"}
#: Stays in the background until the page ends, once it has said this.
READY = {"runworker": " is ready.", "runbeat": "beat: Starting..."}
MANAGE_PY = """\
import os, sys
from django.core.management import execute_from_command_line
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
execute_from_command_line(sys.argv)
"""
SETTINGS_BEGIN = "from tests.settings import *\n"
#: Apps add up: a page shows the lines that one adds, "..." stands for the rest.
SETTINGS_END = """
INSTALLED_APPS = list(dict.fromkeys(app for app in [*_apps, *INSTALLED_APPS, *{apps!r}] if app is not ...))
"""


class SnippetFailed(AssertionError):
    """A block of a page does not do what the page says."""


class Project:
    """The directory, the settings, one interpreter and the workers in the background; a context manager.

    ``environ`` names the database. Leaving it ends all processes and lets ``manage.py check`` judge the settings.

    A page that begins with ``django-admin startproject`` gets what that makes, instead: its own settings and database,
    and no app that it does not install itself.
    """

    def __init__(self, directory: Path, page: Path, environ: Mapping[str, str]) -> None:
        self.directory = directory
        self.page = page
        self._base = environ
        self.environ: dict[str, str] = {}
        self._begin = ""
        self._settings_file = directory
        self._settle(directory, "settings", SETTINGS_BEGIN)
        self._installs_itself = False
        self._settings: list[str] = []
        self._apps: list[str] = []
        self._syncdb_due = False
        self._failed = False
        self._interpreter: subprocess.Popen[str] | None = None
        self._processes = ExitStack()
        self._log = directory / "log"

    def __enter__(self) -> Self:
        (self.directory / "manage.py").write_text(MANAGE_PY)
        self._write_settings()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._failed = kind is not None
        self._processes.close()
        if kind is None and self._settings:
            self._manage(self.environ, "check")

    def run(self, block: Block) -> None:
        """Do what a block says. Raises ``SnippetFailed`` with the place and the reason."""
        try:
            if block.file:
                self._write(block.file, block.text)
            elif block.language == "console":
                for command, output in commands_in(block.text):
                    self._command(command, "" if block.varies else output)
            else:
                self._python(block)
        except SnippetFailed as failure:
            raise SnippetFailed(f"{self.page.name}, line {block.line}: {failure}\n{self._end_of_log()}") from None

    def _write(self, path: Path, text: str) -> None:
        self._interpreter = None  # what follows is for a new one, which knows the file
        if path.name == "settings.py":
            self._settings.append(text)
        else:
            if len(path.parts) < 2 or path.is_absolute() or ".." in path.parts:
                raise SnippetFailed(f"# {path}: name the file with its app's directory, as in # shop/{path.name}")
            file = self.directory / path
            file.parent.mkdir(parents=True, exist_ok=True)
            for package in path.parents[:-1]:
                (self.directory / package / "__init__.py").touch()
            # A second block of the same file goes on where the first one ended.
            with file.open("a") as stream:
                stream.write(text)
            app = ".".join(path.parent.parts)
            if app not in self._apps:
                self._apps.append(app)
            self._syncdb_due = self._syncdb_due or path.name == "models.py"
        self._write_settings()

    def _write_settings(self) -> None:
        apps = [] if self._installs_itself else self._apps
        text = "\n".join([self._begin, "_apps = INSTALLED_APPS", *self._settings, SETTINGS_END.format(apps=apps)])
        self._settings_file.write_text(text)

    def _settle(self, directory: Path, settings: str, begin: str) -> None:
        """Work in ``directory`` from now on, with this module of settings, whose text is ``begin`` so far."""
        self.directory = directory
        self._begin = begin
        self._settings_file = directory.joinpath(*settings.split(".")).with_suffix(".py")
        path = f"{directory}{os.pathsep}{ROOT}"
        self.environ = {**self._base, "DJANGO_SETTINGS_MODULE": settings, "PYTHONPATH": path}

    def _python(self, block: Block) -> None:
        if self._interpreter is None:
            self._make_tables()
            self._interpreter = self._spawn(self.environ, "-m", "tests.docs.interpreter", talk=True)
        assert self._interpreter.stdin
        assert self._interpreter.stdout
        request = {
            "language": block.language,
            "text": block.text,
            "page": str(self.page),
            "line": block.line,
            "varies": block.varies,
        }
        self._interpreter.stdin.write(json.dumps(request) + "\n")
        self._interpreter.stdin.flush()
        answer = self._interpreter.stdout.readline()
        if failure := json.loads(answer)["failure"] if answer else "the interpreter died":
            raise SnippetFailed(failure)

    def _command(self, line: str, output: str) -> None:
        words = shlex.split(line, comments=True)
        environ = dict(self.environ)
        while words and re.match(r"\w+=", words[0]):
            name, _, environ[name] = words.pop(0).partition("=")
        match words:
            case ["python" | "./manage.py", *_] if "manage.py" in words[0] or words[1:2] == ["manage.py"]:
                arguments = words[words.index("manage.py") + 1 :] if words[0] == "python" else words[1:]
                self._manage_as_shown(environ, arguments, output)
            case ["django-admin", "startproject", name]:
                self._run(environ, "-m", "django", "startproject", name)
            case ["cd", name] if (self.directory / name / "manage.py").exists():
                made = self.directory / name / name / "settings.py"
                self._settle(self.directory / name, f"{name}.settings", made.read_text())
                self._installs_itself = True
            case ["python", "-m", "venv", _] | ["source", _]:
                pass  # the tests have an environment of their own
            case ["pytest", *arguments]:
                self._make_tables()
                # Neither the plugins of this run nor those that happen to be installed.
                plugins = ["-p", "django", "-p", "django_tasks.testing.plugin"]
                alone = {**environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
                check_output(line, self._run(alone, "-m", "pytest", *plugins, *arguments), output)
            case ["make", *targets]:
                check_make(targets)
            case ["pip" | "uv", *_] | ["python", "-m", "pip", *_]:
                check_extras(line)
            case _:
                raise SnippetFailed(f"$ {line}\ncannot be run here; say so above it: <!-- not run: the reason -->")

    def _manage_as_shown(self, environ: Mapping[str, str], arguments: list[str], output: str) -> None:
        self._make_tables()
        if arguments[0] in CHECKED_ONLY:
            self._manage(environ, "help", arguments[0])
        elif arguments == ["shell"]:
            self._interpreter = None  # what follows is typed into a new one
        elif arguments[0] in READY and "--burst" not in arguments:
            said = READY[arguments[0]]
            before = self._said(said)
            process = self._spawn(environ, "manage.py", *arguments)
            self._processes.callback(self._end_process, process)
            eventually(
                lambda: self._said(said) > before or process.poll() is not None,
                timeout=60,
                message=f"{arguments[0]} is not ready",
            )
        else:
            check_output(f"python manage.py {shlex.join(arguments)}", self._manage(environ, *arguments), output)

    def _make_tables(self) -> None:
        if self._syncdb_due:
            self._syncdb_due = False
            self._manage(self.environ, "migrate", "--run-syncdb", "--verbosity", "0")

    def _manage(self, environ: Mapping[str, str], *arguments: str) -> str:
        return self._run(environ, "manage.py", *arguments)

    def _run(self, environ: Mapping[str, str], *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SnippetFailed(f"{shlex.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout + done.stderr

    def _spawn(self, environ: Mapping[str, str], *arguments: str, talk: bool = False) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE if talk else None
        log = self._processes.enter_context(self._log.open("a"))
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.directory,
            env=environ,
            stdin=pipe or subprocess.DEVNULL,
            stdout=pipe or log,
            stderr=log,
            text=True,
        )
        self._processes.enter_context(process)  # which closes its pipes and waits for it
        if not talk:
            return process
        self._processes.callback(process.kill)
        return process

    def _end_process(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        if status and not self._failed:
            raise SnippetFailed(f"a process in the background ended with {status}:\n{self._end_of_log()}")

    def _said(self, text: str) -> int:
        return self._log.read_text().count(text) if self._log.exists() else 0

    def _end_of_log(self) -> str:
        return "\n".join(self._log.read_text().splitlines()[-40:]) if self._log.exists() else ""


def commands_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of a console block, each with the output shown below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.replace("\\\n", " ").partition("\n")
        yield command, output


def check_output(line: str, got: str, output: str) -> None:
    """Raise ``SnippetFailed`` when a command did not print what the page shows."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if output.strip() and not doctest.OutputChecker().check_output(f"...{output.strip()}...", got, flags):
        raise SnippetFailed(f"$ {line}\nprinted\n{got}\ninstead of\n{output}")


def check_make(targets: list[str]) -> None:
    """Raise ``SnippetFailed`` when the Makefile has no such target."""
    known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    if unknown := [word for word in targets if "=" not in word and word not in known]:
        raise SnippetFailed(f"make {' '.join(unknown)}: no such target, there are {', '.join(known)}")


def check_extras(line: str) -> None:
    """Raise ``SnippetFailed`` when a command installs an extra which the package does not have."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extras in re.findall(r"django-workbeat\[([\w,-]+)\]", line):
        if unknown := set(extras.split(",")) - set(known):
            raise SnippetFailed(f"{line}: no extra {', '.join(unknown)}, there are {', '.join(known)}")
