"""Databases by URL, for the settings of every process in the tests: it imports next to nothing."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

ENGINES = {
    "sqlite": "django.db.backends.sqlite3",
    "postgresql": "django.db.backends.postgresql",
    "mysql": "django.db.backends.mysql",
}
OPTIONS: dict[str, dict[str, object]] = {
    "sqlite": {
        "timeout": 20,  # seconds to wait for another writer
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    },
    "postgresql": {},
    "mysql": {"charset": "utf8mb4"},
}


def settings_from_url(url: str) -> dict[str, Any]:
    """Return an entry of ``DATABASES`` for a URL.

    ``sqlite:////absolute/path``, ``postgresql://user:password@host:port/name?host=/socket/directory``,
    ``mysql://user:password@host:port/name``; other query parameters become ``OPTIONS``, as text.

    Raises ``ValueError`` when the scheme is another one or no database is named.
    """
    parts = urlsplit(url)
    kind, name = parts.scheme, unquote(parts.path[1:])
    if kind not in ENGINES:
        raise ValueError(f"DATABASE_URL {url!r}: the scheme is {kind!r}, allowed are {', '.join(ENGINES)}")
    if not name:
        raise ValueError(f"DATABASE_URL {url!r} names no database; allowed are URLs like {kind}://host/name")
    if kind == "mysql":
        # The same protocol as mysqlclient in pure Python, so that the tests need no compiler and no client library.
        import pymysql

        pymysql.install_as_MySQLdb()
    query = dict(parse_qsl(parts.query))
    return {
        "ENGINE": ENGINES[kind],
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "OPTIONS": {**OPTIONS[kind], **query},
    }
