"""Fresh databases for tests: a migrated template per server, a copy for each test.

The pytest process imports this module; the processes that tests start need only :mod:`tests.database_urls`.
"""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from tests.database_urls import settings_from_url
from tests.servers import URL_VARIABLES, Server, execute, new_server

#: What a test may ask for with ``@pytest.mark.databases``: of these it gets one after the other if it names none,
KINDS = ("sqlite", "postgresql", "mariadb")
#: and this is SQLite with a Redis in front, which carries the tasks of the test and of the processes that it starts.
REDIS = "redis"


@contextmanager
def attached(alias: str, url: str) -> Iterator[BaseDatabaseWrapper]:
    """Let a connection alias lead to ``url``, then again to what it led to before (which may be nothing)."""
    settings = settings_from_url(url)
    completed = connections.configure_settings({DEFAULT_DB_ALIAS: settings, alias: settings})[alias]
    settings_before = connections.databases.get(alias)
    # Kept open and put back: a connection to pytest-django's database in memory *is* that database.
    connection_before = next((each for each in connections.all(initialized_only=True) if each.alias == alias), None)
    if connection_before:
        del connections[alias]
    connections.databases[alias] = completed
    try:
        yield connections[alias]
    finally:
        connections[alias].close()
        del connections[alias]
        del connections.databases[alias]
        if settings_before:
            connections.databases[alias] = settings_before
        if connection_before:
            connections[alias] = connection_before


def forget_connections() -> None:
    """Close this thread's connections, so that its next ones lead to the databases of then: a thread that outlives a
    test would use the test's."""
    for connection in connections.all(initialized_only=True):
        connection.close()
        del connections[connection.alias]


@dataclass(frozen=True)
class TestDatabase:
    """A fresh, migrated database which belongs to one test; other processes see its rows."""

    __test__: ClassVar[bool] = False  # pytest takes classes named Test* for tests

    #: ``sqlite``, ``postgresql`` or ``mariadb``.
    kind: str
    #: The connection alias in this process; in others it is ``default``.
    alias: str
    #: What other processes are given as ``DATABASE_URL``.
    url: str
    #: The test's own server, to stop, freeze and kill, if it asked for one with ``private=True``.
    server: Server | None = None
    #: What ``DJANGO_TASKS`` says of the Redis in front of it, if it has one.
    broker: Mapping[str, Any] = field(default_factory=dict)

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """The connection of the calling thread."""
        return connections[self.alias]

    @property
    def vendor(self) -> str:
        """Django's name for it: ``sqlite``, ``postgresql`` or ``mysql``."""
        return self.connection.vendor

    def environ(self, **tasks_settings: object) -> dict[str, str]:
        """Return the environment of a process that works on this database.

        ``tasks_settings`` are merged into its ``DJANGO_TASKS``; they must be JSON.
        """
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "DATABASE_URL": self.url,
            "TEST_DJANGO_TASKS": json.dumps({**self.broker, **tasks_settings}),
        }


class Databases(ABC):
    """Makes databases of one kind for tests, each a copy of a migrated template, and takes them away again."""

    @abstractmethod
    def make(self, directory: Path) -> str:
        """Return the URL of a fresh migrated database; ``directory`` is the test's own."""

    @abstractmethod
    def remove(self, url: str) -> None:
        """Take back what ``make()`` gave, whoever is still connected."""

    @abstractmethod
    def close(self) -> None:
        """Remove the template."""


class SQLiteDatabases(Databases):
    """Copies of a migrated file."""

    def __init__(self, directory: Path) -> None:
        self._template = directory / "template.sqlite3"
        migrate(f"sqlite:///{self._template}")

    def make(self, directory: Path) -> str:
        return f"sqlite:///{shutil.copyfile(self._template, directory / 'db.sqlite3')}"

    def remove(self, url: str) -> None:
        """Leave the file to pytest, which keeps the directories of the last few runs for a look."""

    def close(self) -> None:
        """Leave the template to pytest, too."""


class ServerDatabases(Databases):
    """What PostgreSQL and MariaDB have in common: databases with names on a server."""

    def __init__(self, server_url: str) -> None:
        self.server_url = server_url
        self._numbers = count(1)
        self._template = self.make_empty()
        migrate(self._template)

    def make_empty(self) -> str:
        """Return the URL of a new database without tables."""
        url = self._new_url()
        execute(self.server_url, f"CREATE DATABASE {name_in(url)}")
        return url

    def remove(self, url: str) -> None:
        execute(self.server_url, f"DROP DATABASE {name_in(url)}")

    def close(self) -> None:
        self.remove(self._template)

    def _new_url(self) -> str:
        # The process id: several runs may share a server that the environment names.
        return urlsplit(self.server_url)._replace(path=f"/tasks_{os.getpid()}_{next(self._numbers)}").geturl()


class PostgreSQLDatabases(ServerDatabases):
    """``CREATE DATABASE … TEMPLATE``, 30 ms."""

    def __init__(self, server_url: str) -> None:
        super().__init__(server_url)
        [(version,)] = execute(server_url, "SHOW server_version_num")
        # Since 15 another way is usual, which is slower for small databases.
        self._how = "STRATEGY FILE_COPY" if int(version) >= 150_000 else ""

    def make(self, directory: Path) -> str:
        url = self._new_url()
        execute(self.server_url, f"CREATE DATABASE {name_in(url)} TEMPLATE {name_in(self._template)} {self._how}")
        return url

    def remove(self, url: str) -> None:
        execute(self.server_url, f"DROP DATABASE {name_in(url)} WITH (FORCE)")


class MariaDBDatabases(ServerDatabases):
    """The template's ``CREATE TABLE`` statements and the rows that its migrations wrote, 130 ms."""

    def __init__(self, server_url: str) -> None:
        super().__init__(server_url)
        template = name_in(self._template)
        self._statements = ["SET foreign_key_checks = 0"]
        for (table,) in execute(server_url, f"SHOW TABLES FROM {template}"):
            [(_, definition)] = execute(server_url, f"SHOW CREATE TABLE {template}.`{table}`")
            self._statements.append(definition)
            if execute(server_url, f"SELECT 1 FROM {template}.`{table}` LIMIT 1"):
                self._statements.append(f"INSERT INTO `{table}` SELECT * FROM {template}.`{table}`")

    def make(self, directory: Path) -> str:
        url = self.make_empty()
        execute(self.server_url, f"USE {name_in(url)}", *self._statements)
        return url


def name_in(url: str) -> str:
    """Return the name of the database, the path of the URL."""
    return urlsplit(url).path[1:]


def migrate(url: str) -> None:
    """Create the tables in the database at ``url``."""
    with attached("template", url):
        call_command("migrate", database="template", verbosity=0, interactive=False)


class DatabaseMaker:
    """Everything that makes databases in one run of the tests; servers start when the first test asks for one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._databases: dict[str, Databases] = {}
        self._servers: list[Server] = []

    def of(self, kind: str) -> Databases:
        """Return the databases of one kind that all tests share. Raises ``ServerMissing``, ``ServerFailed``."""
        if kind not in self._databases:
            self._databases[kind] = self._open(kind)
        return self._databases[kind]

    def _open(self, kind: str) -> Databases:
        if kind == "sqlite":
            return SQLiteDatabases(self._directory)
        url = os.environ.get(URL_VARIABLES[kind])
        if not url:
            self._servers.append(new_server(kind))
            url = self._servers[-1].url
        return ON_SERVERS[kind](url)

    def close(self) -> None:
        """Remove the templates and stop the servers that were started."""
        for databases in self._databases.values():
            databases.close()
        for server in self._servers:
            server.close()


ON_SERVERS: dict[str, type[ServerDatabases]] = {"postgresql": PostgreSQLDatabases, "mariadb": MariaDBDatabases}
