"""A site whose tasks are carried by a Redis that the test may stop, freeze, fill and kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from django.conf import settings
from django.test import override_settings

from django_tasks import AsyncResult
from django_tasks.backends import close_all
from django_tasks.models import TaskResult
from tests.conftest import do_without
from tests.databases import TestDatabase
from tests.integration.site import PATIENCE, Account, Site
from tests.servers import Redis, ServerMissing, new_server


class RedisSite(Site):
    """A database, a Redis of the site's own (or one that is at ``url``), and workers; this process sends through the
    same Redis."""

    def __init__(self, database: TestDatabase, directory: Path, *, url: str = "", **options: str) -> None:
        super().__init__(database, directory)
        self._server: Redis | None = None
        if not url:
            server = new_server("redis", **options)
            assert isinstance(server, Redis)
            self._server, url = server, server.url
        #: What the site's ``DJANGO_TASKS`` says of Redis; the timeout is short for tests that wait for it.
        self.broker: dict[str, Any] = {"BROKER_URL": url, "BROKER_CONNECTION_TIMEOUT": 2.0}
        self._settings = override_settings()
        self._settings.enable()
        self.configure()

    @classmethod
    def open(cls, database: TestDatabase, directory: Path) -> Self:
        """Return a site with a Redis of its own; where there is none, the test is skipped, or fails in CI."""
        try:
            return cls(database, directory)
        except ServerMissing as missing:
            do_without("redis", missing)

    @property
    def redis(self) -> Redis:
        """The site's own server."""
        assert self._server is not None
        return self._server

    def configure(self, **broker: Any) -> None:
        """Let this process, and workers that start from now on, reach Redis so."""
        self._settings.disable()
        self.broker.update(broker)
        self._settings = override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, **self.broker})
        self._settings.enable()
        close_all()

    def environ(self, **tasks_settings: Any) -> dict[str, str]:
        return super().environ(**{**self.broker, **tasks_settings})

    def parts(self) -> set[str]:
        """Return the last parts of the names of all keys."""
        with self.redis.client() as client:
            return {key.decode().rpartition("}:")[2] for key in client.scan_iter()}

    def account_without_rows(self, sent: Iterable[AsyncResult[Any]]) -> Account:
        """Wait until everything is in the ledger: what has no row is not done before."""
        ids = {result.id for result in sent}
        self.wait_for(
            lambda: ids <= {str(key) for key in TaskResult.objects.values_list("pk", flat=True)},
            timeout=PATIENCE,
            message="tasks are lost or stuck",
        )
        return Account(
            {str(row.pk): row.state for row in TaskResult.objects.all()},
            Counter(entry.task_id for entry in self.journal("start")),
            Counter(entry.task_id for entry in self.journal("end")),
        )

    def close(self) -> None:
        super().close()
        close_all()
        self._settings.disable()
        if self._server is not None:
            self._server.close()
