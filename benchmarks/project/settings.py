"""Settings; the database is the one of the environment's ``DATABASE_URL``."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit

try:
    import MySQLdb  # noqa: F401 - the driver that Django asks for
except ImportError:
    try:
        import pymysql
    except ImportError:
        pass
    else:
        pymysql.version_info = (2, 2, 1, "final", 0)
        pymysql.install_as_MySQLdb()

_ENGINES = {"postgresql": "postgresql", "sqlite": "sqlite3", "mysql": "mysql"}


def _database(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme not in _ENGINES:
        raise ValueError(f"DATABASE_URL is {url!r}; it must begin with one of {', '.join(_ENGINES)}.")
    engine = f"django.db.backends.{_ENGINES[parts.scheme]}"
    if parts.scheme == "sqlite":
        return {"ENGINE": engine, "NAME": parts.path}
    return {
        "ENGINE": engine,
        "NAME": parts.path.lstrip("/"),
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
        # As a site would have it: a connection is kept from one request to the next.
        "CONN_MAX_AGE": None,
    }


SECRET_KEY = "only for benchmarks"  # noqa: S105
INSTALLED_APPS = ["django_tasks", "benchmarks.project"]
DATABASES = {"default": _database(os.environ.get("DATABASE_URL", "sqlite:///benchmark.sqlite3"))}
USE_TZ = True
DJANGO_TASKS = {
    "IMPORTS": os.environ.get("BENCHMARK_IMPORTS", "").split(),
    **json.loads(os.environ.get("BENCHMARK_TASKS", "{}")),
}
