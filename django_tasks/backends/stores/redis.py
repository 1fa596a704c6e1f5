"""Values in Redis or Valkey, which forgets them by itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ... import addresses
from ...conf import settings
from ..redis.server import Server
from .base import ResultStore


class RedisStore(ResultStore):
    """One key for each value, ``<prefix>:v:<key>``; on a cluster they are spread over it."""

    def __init__(self, url: str) -> None:
        self._server = Server(addresses.parse(url), settings.BROKER_CONNECTION_TIMEOUT)

    def save(self, values: Mapping[str, str], lifetime: float | None) -> Mapping[str, str]:
        ending = () if lifetime is None else ("PX", max(1, round(lifetime * 1000)))
        self._server.many([("SET", self._key(key), value, *ending) for key, value in values.items()])
        return {key: key for key in values}

    def load(self, reference: str) -> str | None:
        found = self._server.command("GET", self._key(reference))
        return None if found is None else found.decode()

    def delete(self, references: Collection[str]) -> None:
        self._server.many([("UNLINK", self._key(one)) for one in references])

    def close(self) -> None:
        self._server.close()

    def _key(self, key: str) -> str:
        return f"{self._server.address.prefix}:v:{key}"
