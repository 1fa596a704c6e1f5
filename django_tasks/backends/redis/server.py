"""The connection to Redis or Valkey: opening it, running scripts, and telling what went wrong in our own words.

redis-py repeats nothing by itself here: whether a command may be repeated is for the caller to say, and its caller
waits between tries, longer each time and never in step with others.
"""

from __future__ import annotations

import hashlib
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from ...addresses import Address
from ...exceptions import ImproperlyConfigured, OperationalError

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: The oldest server whose commands the scripts know.
OLDEST = (6, 2)
#: The oldest server that can be told which scripts may run when it is full.
SPARES = (7, 0)
#: Seconds without traffic after which a connection is tried before it is trusted.
HEALTH_CHECK = 15
#: The same for the servers of a cluster: an idle worker asks one of a queue every twenty.
CLUSTER_HEALTH_CHECK = 30
#: For as long as it took to find out that a server does not answer, those who need not wait for it do not ask it again:
#: from so many seconds on, and for at most so many.
AVOID_FROM, AVOID_MOST = 0.25, 10.0
#: Least seconds that each server of a cluster, and each Sentinel, has for an answer.
SHARE_LEAST = 0.5
#: Most characters of an error of redis-py that are told.
TOLD = 300
#: Characters from which a password is found within a word, too.
SHORT = 6
#: Scripts that may run when the server is full: they give memory back, or keep alive what does.
_SPARING = frozenset(
    {
        "step",
        "settle",
        "remove",
        "give",
        "empty",
        "lease",
        "beat",
        "dead",
        "expire",
        "leave",
        "stop",
        "turn",
        "promote",
        "vacate",
        "forget",
    }
)
#: The tag of the keys that belong to no queue; no queue can be called so.
GLOBAL = "{~}"


class RedisAway(OperationalError):
    """Redis cannot be reached, or refused."""

    cure = "Start Redis or correct BROKER_URL"


class Elsewhere(RedisAway):
    """The slot of a key is on another server of the cluster, or on its way there."""


class Server:
    """One process's connections to one server (or a cluster); usable from any thread. Connects at first use."""

    def __init__(self, address: Address, timeout: float) -> None:
        self.address = address
        #: Seconds for which to wait for a connection, and for an answer.
        self.timeout = timeout
        #: Grows with every new set of connections, and whenever an answer did not come.
        self.generation = 0
        self._client: Any = None
        self._lock = threading.Lock()
        self._avoided_until = 0.0
        self._problem = ""
        self._version: tuple[int, ...] | None = None

    @property
    def is_cluster(self) -> bool:
        """Are keys of different queues on different servers?"""
        return self.address.kind == "cluster"

    # Keys

    def queue(self, name: str) -> str:
        """Return the key of a queue, which begins those of all its parts."""
        return f"{self.address.prefix}:{{{name}}}"

    def shared(self, name: str) -> str:
        """Return a key that belongs to no queue."""
        return f"{self.address.prefix}:{GLOBAL}:{name}"

    # Commands

    def run(self, script: str, keys: Sequence[str], args: Sequence[Any] = (), *, avoid: bool = False) -> Any:
        """Run a script and return what it returns. ``avoid``: fail at once if the server has just not answered.

        Raises :class:`~django_tasks.exceptions.OperationalError`: whether it took effect is then unknown.
        """
        client = self.client(avoid=avoid)
        with self._telling():
            text, digest = self._script(script)
            try:
                return client.execute_command("EVALSHA", digest, len(keys), *keys, *args)
            except _errors().NoScriptError:  # the server has been restarted, or is another one
                return client.execute_command("EVAL", text, len(keys), *keys, *args)

    def digest(self, script: str) -> str:
        """Return what ``EVALSHA`` calls a script by, which the server knows once it was run."""
        return self._script(script)[1]

    def command(self, *words: Any, avoid: bool = False) -> Any:
        """Run one command. Raises as :meth:`run` does."""
        client = self.client(avoid=avoid)
        with self._telling():
            return client.execute_command(*words)

    def many(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Run commands in one round trip, not in one transaction. Raises as :meth:`run` does."""
        if not commands:
            return []
        client = self.client()
        with self._telling():
            pipeline = client.pipeline() if self.is_cluster else client.pipeline(transaction=False)
            for words in commands:
                pipeline.execute_command(*words)
            return list(pipeline.execute())

    def client(self, *, avoid: bool = False) -> Any:
        """Return redis-py's client, made at first use."""
        self._refuse_if(avoid)
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._refuse_if(avoid)  # who had the lock may have found out
                    with self._telling():
                        self._client = _client(self.address, self.timeout)
                    self.generation += 1
        return self._client

    def _refuse_if(self, avoid: bool) -> None:
        if avoid and time.monotonic() < self._avoided_until:
            raise RedisAway(f"{self.name} was asked a moment ago and {self._problem}")

    def slot(self, key: str) -> int:
        """Return the slot of a key in a cluster; keys of one slot are together."""
        return int(_redis("redis.crc").key_slot(key.encode()))

    def client_of(self, key: str | None = None) -> Any:
        """Return redis-py's client of the one server that has a key; of any if there is none."""
        client = self.client()
        if not self.is_cluster:
            return client
        with self._telling():
            if key is None:
                return client.get_redis_connection(client.get_default_node())
            client.execute_command("EXISTS", key)  # by the answer redis-py learns of a slot that has moved
            return client.get_redis_connection(client.get_node_from_key(key))

    def connection(self, client: Any = None) -> Any:
        """Return a connection that is the caller's alone, open; to be disconnected by the caller. ``client``: of which
        server, as :meth:`client_of` says."""
        pool = (self.client_of() if client is None else client).connection_pool
        with self._telling():
            made = pool.connection_class(**pool.connection_kwargs)
            made.connect()
            return made

    def version(self) -> tuple[int, ...]:
        """Return the server's version; that of the Redis which a Valkey says it is like."""
        if self._version is None:
            found = str(self.info("server").get("redis_version", "0"))
            self._version = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
        return self._version

    def info(self, section: str) -> dict[str, Any]:
        """Return a section of ``INFO``."""
        client = self.client()
        with self._telling():
            found = (
                client.info(section, target_nodes=client.get_default_node())
                if self.is_cluster
                else client.info(section)
            )
            return dict(found)

    @property
    def name(self) -> str:
        """The address without its password, for messages."""
        return f"Redis at {self.address}"

    def close(self) -> None:
        """Close every connection; the next use makes new ones. Needed before a fork: none may cross it."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            try:
                client.close()
            except Exception:
                logger.debug("Closing a broken connection failed", exc_info=True)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Turn redis-py's errors into ours, for what uses a connection of its own."""
        with self._telling():
            yield

    def _script(self, name: str) -> tuple[str, str]:
        return script_text(name, sparing=name in _SPARING and self.version() >= SPARES)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        errors, began = _errors(), time.monotonic()
        try:
            yield
        except (errors.RedisError, errors.RedisClusterException) as error:
            problem = f"{_reason(error)}: {self._readable(str(error) or type(error).__name__)}"
            if isinstance(error, _away()):
                self._avoid(problem, began)
            if isinstance(error, errors.ReadOnlyError):  # it has become a replica: ask again who is not
                self.close()
            kind = Elsewhere if isinstance(error, (errors.AskError, errors.TryAgainError)) else RedisAway
            raise kind(f"{self.name} {problem}") from error
        except OSError as error:
            self._avoid(f"cannot be reached: {error}", began)
            raise RedisAway(f"{self.name} cannot be reached: {error}") from error

    def _avoid(self, problem: str, began: float) -> None:
        """Nobody knows what took effect; who need not wait for an answer does not ask for a while."""
        now = time.monotonic()
        self.generation += 1
        self._problem = problem
        if now - began > AVOID_FROM:
            self._avoided_until = now + min(now - began, AVOID_MOST)

    def _readable(self, text: str) -> str:
        """Return an error of redis-py without the password, and of a bearable length."""
        for secret in (self.address.password, self.address.sentinels.get("password")):
            if secret and len(secret) < SHORT:  # but not each such letter of a word
                text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
            elif secret:
                text = text.replace(secret, "***")
        return text if len(text) <= TOLD else f"{text[:TOLD]}…"


@cache
def script_text(name: str, *, sparing: bool = False) -> tuple[str, str]:
    """Return a script's text and its SHA-1. ``sparing``: it may run when the server is full, which Redis 7 can be told.

    https://redis.io/docs/latest/develop/programmability/lua-api/#script_flags
    """
    folder = Path(__file__).with_name("scripts")
    text = (folder / "common.lua").read_text() + (folder / f"{name}.lua").read_text()
    if sparing:
        text = f"#!lua flags=allow-oom\n{text}"
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@cache
def _errors() -> Any:
    return _redis("redis.exceptions")


@cache
def _away() -> tuple[type[Exception], ...]:
    """Return the errors that say that nobody can be asked for a while."""
    errors = _errors()
    return (
        errors.ConnectionError,
        errors.TimeoutError,
        errors.ReadOnlyError,
        errors.ClusterDownError,
        errors.RedisClusterException,  # which is no RedisError
    )


def _reason(error: Exception) -> str:
    errors = _errors()
    if isinstance(error, errors.OutOfMemoryError) or "OOM" in str(error)[:40]:
        return "is full"
    # For redis-py a wrong password is a ConnectionError.
    if isinstance(error, errors.AuthenticationError) or not isinstance(error, _away()):
        return "refused"
    return "cannot be reached"


def _redis(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImproperlyConfigured(
            "DJANGO_TASKS['BROKER_URL'] names a Redis, and redis-py is missing: pip install 'django-workbeat[redis]'"
        ) from error


def _client(address: Address, timeout: float) -> Any:
    _read_certificates(address)
    options = _options(address, timeout)
    if address.kind == "sentinel":
        mine = {key: value for key, value in options.items() if key not in ("db", "username", "password")}
        sentinel = _redis("redis.sentinel").Sentinel(
            list(address.hosts),
            sentinel_kwargs={**mine, **_timeouts(timeout, len(address.hosts)), **address.sentinels},
            **options,
        )
        return sentinel.master_for(address.service)
    if address.kind == "cluster":
        cluster = _redis("redis.cluster")
        nodes = [cluster.ClusterNode(host, port) for host, port in address.hosts]
        # When one does not answer, each is asked where what is now.
        options = {**options, **_timeouts(timeout, len(nodes) + 1), "health_check_interval": CLUSTER_HEALTH_CHECK}
        del options["db"]
        if int(_redis("redis").__version__.partition(".")[0]) < 6:
            options["cluster_error_retry_attempts"] = 0  # which "retry" says since
        return cluster.RedisCluster(startup_nodes=nodes, **options)
    if address.socket:
        options = {key: value for key, value in options.items() if not key.startswith("socket_keepalive")}
        return _redis("redis").Redis(unix_socket_path=address.socket, **options)
    [(host, port)] = address.hosts
    return _redis("redis").Redis(host=host, port=port, **options)


def _read_certificates(address: Address) -> None:
    """Raise ``ImproperlyConfigured`` for a file that cannot be read: the connection's error would not name it."""
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        path = address.certificates.get(name)
        try:
            if path:
                Path(str(path)).open("rb").close()
        except OSError as error:
            raise ImproperlyConfigured(
                f"{name} of Redis at {address} is {path}, which cannot be read: {error.strerror}"
            ) from error


def _timeouts(timeout: float, count: int) -> dict[str, float]:
    """Let so many be asked one after the other in the time that one may take."""
    each = max(timeout / count, min(timeout, SHARE_LEAST))
    return {"socket_timeout": each, "socket_connect_timeout": each}


def _options(address: Address, timeout: float) -> dict[str, Any]:
    never: Callable[..., Any] = _redis("redis.retry").Retry
    options: dict[str, Any] = {
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "protocol": 2,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "socket_keepalive": True,
        "socket_keepalive_options": _keepalive(),
        "health_check_interval": HEALTH_CHECK,
        "retry": never(_redis("redis.backoff").NoBackoff(), 0),
    }
    if address.encrypted:
        checked = address.certificates.get("ssl_cert_reqs") != "none"
        options |= {"ssl": True, "ssl_check_hostname": checked, **address.certificates}
    return options


def _keepalive() -> dict[int, int]:
    """Return what finds out within half a minute that the other side is gone, where the system has it."""
    wanted = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
