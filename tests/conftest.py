"""Fixtures for all tests: above all ``database``, a fresh migrated one of each kind.

A test that takes ``database`` runs once for each kind of database; ``@pytest.mark.databases`` narrows that::

    @pytest.mark.databases("sqlite", "postgresql")           # only these
    @pytest.mark.databases("postgresql", private=True)       # on a server of its own: database.server.kill()
    @pytest.mark.databases(alias="tasks")                    # not as "default": DJANGO_TASKS["DATABASE"] is "tasks"
    @pytest.mark.databases(*KINDS, REDIS)                    # on each, and once more with a Redis in front of SQLite
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest
import redis
from asgiref.sync import SyncToAsync
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from django_tasks.backends import close_all
from tests import redis_servers
from tests.databases import KINDS, ON_SERVERS, REDIS, DatabaseMaker, TestDatabase, attached, forget_connections
from tests.servers import URL_VARIABLES, Server, ServerMissing, new_server

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

_NUMBERS = count(1)
EVERY_KIND = (*KINDS, REDIS)
MARKER = "databases(*kinds, private=False, alias='default'): kinds of the fixture database; a server of its own; name"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--databases",
        default=",".join(EVERY_KIND),
        metavar="KINDS",
        help=f"run the tests of these databases only, separated by commas; default {','.join(EVERY_KIND)}",
    )
    parser.addoption(
        "--each-in",
        metavar="PATHS",
        help="run the tests under these paths, separated by commas, on each of those, others on the last one only",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    config.addinivalue_line("markers", "redis(**options): settings of the site's own Redis")
    unknown = set(config.getoption("--databases").split(",")) - set(EVERY_KIND)
    if unknown:
        raise pytest.UsageError(
            f"--databases: {', '.join(sorted(unknown))} unknown, allowed are {', '.join(EVERY_KIND)}"
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("databases")
        wanted = (marker.args if marker else ()) or KINDS
        if unknown := set(wanted) - set(EVERY_KIND):
            raise pytest.UsageError(f"databases({', '.join(sorted(unknown))}): allowed are {', '.join(EVERY_KIND)}")
        chosen = {*wanted} & {*metafunc.config.getoption("--databases").split(",")}
        kinds = [kind for kind in KINDS if kind in chosen]
        if (paths := metafunc.config.getoption("--each-in")) is not None:
            each = any(metafunc.definition.path.is_relative_to(Path(path).resolve()) for path in paths.split(","))
            kinds = kinds if each else kinds[-1:]
        metafunc.parametrize("database", kinds + [REDIS] * (REDIS in chosen), indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what a test logs travel from the process that runs it, whatever it is."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(scope="session")
def database_maker(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[DatabaseMaker]:
    """Give the servers and migrated templates of this run, each started when first asked for."""
    maker = DatabaseMaker(tmp_path_factory.mktemp("databases"))
    yield maker
    with django_db_blocker.unblock():
        maker.close()


@pytest.fixture
def database(
    request: pytest.FixtureRequest, tmp_path: Path, database_maker: DatabaseMaker, django_db_blocker: DjangoDbBlocker
) -> Iterator[TestDatabase]:
    """Give a fresh migrated database as Django's ``default`` one, committed to for real and seen by other processes."""
    if {"db", "transactional_db"} & set(request.fixturenames):
        pytest.fail("take either the fixture database or pytest-django's db and django_db: each replaces 'default'")
    marker = request.node.get_closest_marker("databases")
    alias = (marker.kwargs.get("alias") if marker else None) or DEFAULT_DB_ALIAS
    broker = {"BROKER_URL": request.getfixturevalue("redis_url")} if request.param == REDIS else {}
    kind = "sqlite" if request.param == REDIS else request.param
    with ExitStack() as stack:
        stack.enter_context(django_db_blocker.unblock())
        server = None
        try:
            if marker and marker.kwargs.get("private"):
                server = new_server(kind)
                stack.callback(server.close)
                url = ON_SERVERS[kind](server.url).make(tmp_path)
            else:
                shared = database_maker.of(kind)
                url = shared.make(tmp_path)
                stack.callback(shared.remove, url)
        except ServerMissing as missing:
            do_without(kind, missing)
        # The thread in which asynchronous code does what is synchronous.
        stack.callback(lambda: SyncToAsync.single_thread_executor.submit(forget_connections).result())
        stack.enter_context(attached(alias, url))
        close_all()  # a broker keeps to the kind of database that it first saw
        stack.callback(close_all)
        stack.enter_context(override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, "DATABASE": alias, **broker}))
        ContentType.objects.clear_cache()
        yield TestDatabase(kind, alias, url, server, broker)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """Give the URL of the Redis of this run, without a database."""
    if url := os.environ.get(URL_VARIABLES["redis"]):
        yield url
        return
    try:
        server = new_server("redis")
    except ServerMissing as missing:
        do_without("redis", missing)
    yield server.url
    server.close()


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """Give a ``BROKER_URL`` whose keys no other test has; they are deleted at its end."""
    prefix = f"test{os.getpid()}.{next(_NUMBERS)}"
    yield f"{redis_server}?prefix={prefix}"
    with redis.Redis.from_url(redis_server) as client:
        for key in client.scan_iter(f"{prefix}:*", count=1000):
            client.delete(key)


@pytest.fixture
def private_server() -> Iterator[Callable[..., Server]]:
    """Give a factory of servers which the test may kill: ``private_server("postgresql", fsync="on")``."""
    with ExitStack() as stack:

        def start(kind: str, **options: str) -> Server:
            try:
                server = new_server(kind, **options)
            except ServerMissing as missing:
                do_without(kind, missing)
            stack.callback(server.close)
            return server

        yield start


@contextmanager
def a_cluster() -> Iterator[redis_servers.Cluster]:
    """Give a cluster of three servers."""
    try:
        with redis_servers.cluster() as cluster:
            yield cluster
    except ServerMissing as missing:
        do_without("redis", missing)


def do_without(kind: str, missing: ServerMissing) -> NoReturn:
    """Skip the test; but a run that says it is complete (``CI=true``) must have PostgreSQL and Redis."""
    if kind in ("postgresql", "redis") and os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(str(missing))
    pytest.skip(str(missing))
