"""Where a broker is: reading the setting ``BROKER_URL``, and writing it without its secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

#: The broker that needs no server of its own: the database.
DATABASE: Final = "database://"

#: What each scheme means: how the servers work together, and whether the connection is encrypted. Valkey speaks the
#: same protocol.
_SCHEMES: Final = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "valkey": ("single", False),
    "valkeys": ("single", True),
    "unix": ("single", False),
    "redis+socket": ("single", False),
    "sentinel": ("sentinel", False),
    "redis-cluster": ("cluster", False),
    "rediss-cluster": ("cluster", True),
}
_PORTS: Final = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_CERTIFICATES: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_PARAMETERS: Final = frozenset({"db", "virtual_host", "prefix", "cluster", "tls", *_CERTIFICATES})
_OF_SENTINELS: Final = frozenset({"sentinel_username", "sentinel_password"})
_SECRETS: Final = frozenset({"sentinel_password", "password"})
_YES, _NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})

ALLOWED: Final = (
    "'database://', redis:// or rediss:// (also valkey://, valkeys://), unix://, sentinel:// or redis-cluster://"
)


@dataclass(frozen=True, slots=True)
class Address:
    """A Redis or Valkey: one server, a service that Sentinels watch, or a cluster."""

    #: ``single``, ``sentinel`` or ``cluster``.
    kind: str
    #: Of the servers, or of the Sentinels.
    hosts: tuple[tuple[str, int], ...] = ()
    #: The path of a socket, instead of hosts.
    socket: str = ""
    encrypted: bool = False
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    #: What the Sentinels call the servers.
    service: str = ""
    #: Begins every key.
    prefix: str = "djt"
    #: Certificates (``ssl_…``), as redis-py names them.
    certificates: Mapping[str, str | bool] = field(default_factory=lambda: MappingProxyType({}))
    #: User and password of the Sentinels themselves.
    sentinels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def __str__(self) -> str:
        """Return the URL, with stars for the password."""
        secret = ":***" if self.password is not None else ""
        user = f"{quote(self.username or '')}{secret}@" if self.username or secret else ""
        if self.socket:
            return f"unix://{user}{self.socket}" + (f"?db={self.database}" if self.database else "")
        scheme = {"single": "redis", "sentinel": "sentinel", "cluster": "redis-cluster"}[self.kind]
        if self.encrypted and self.kind != "sentinel":
            scheme = scheme.replace("redis", "rediss", 1)
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        path = {"single": f"/{self.database}", "sentinel": f"/{self.service}", "cluster": ""}[self.kind]
        return f"{scheme}://{user}{hosts}{path}"


def is_database(url: str) -> bool:
    """Does this ``BROKER_URL`` mean the database?"""
    return url in ("", DATABASE)


def masked(url: str) -> str:
    """Return a ``BROKER_URL`` as it may be shown: no password."""
    if is_database(url):
        return DATABASE
    try:
        return str(parse(url))
    except ValueError:
        return f"{scheme_of(url)}://…"


def scheme_of(url: object) -> str:
    """Return what stands before ``://``, in small letters; empty if nothing does."""
    return url.partition("://")[0].lower() if isinstance(url, str) and "://" in url else ""


def parse(url: str) -> Address:
    """Read the URL of a Redis. Raises ``ValueError`` that says what is wrong, without a secret in it."""
    scheme = scheme_of(url)
    if scheme not in _SCHEMES:
        raise ValueError(f"{scheme}:// is not available in this version." if scheme else "")
    kind, encrypted = _SCHEMES[scheme]
    rest, _, query = url.partition("://")[2].partition("?")
    options = _options(query, kind)
    if _flag(options, "cluster"):
        if kind != "single" or scheme in ("unix", "redis+socket"):
            raise ValueError(f"cluster=1 has no meaning with {scheme}://.")
        kind = "cluster"
    netloc, slash, path = rest.partition("/")
    credentials, at, netloc = netloc.rpartition("@")
    username, colon, password = credentials.partition(":")
    address = Address(
        kind,
        encrypted=encrypted or _flag(options, "tls"),
        username=unquote(username) or None,
        password=unquote(password) if at and colon else None,
        prefix=options.get("prefix", "djt"),
        certificates=_certificates(options),
        sentinels={name.removeprefix("sentinel_"): options[name] for name in sorted(_OF_SENTINELS & options.keys())},
    )
    if not _PREFIX.fullmatch(address.prefix):
        raise ValueError("prefix must be 1 to 64 of the characters A-Z a-z 0-9 _ . : -.")
    named = options.get("db", options.get("virtual_host"))
    if scheme in ("unix", "redis+socket"):
        if netloc or not path:
            raise ValueError("A socket is named by its path: unix:///run/redis.sock.")
        return replace(address, socket=unquote(slash + path), database=_number(named))
    hosts = _hosts(netloc, _PORTS[kind], several=kind != "single")
    if kind == "sentinel":
        if not path or "/" in path:
            raise ValueError("The service that the Sentinels watch is missing: sentinel://host:26379/service.")
        return replace(address, hosts=hosts, service=unquote(path), database=_number(named))
    database = _number(path or named)
    if path and named is not None and _number(named) != database:
        raise ValueError("It names two databases: one in the path, another one as db.")
    if kind == "cluster" and database:
        raise ValueError("A cluster has database 0 only.")
    return replace(address, hosts=hosts, database=database)


def _options(query: str, kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    allowed = _PARAMETERS | (_OF_SENTINELS if kind == "sentinel" else frozenset())
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            hidden = " (it belongs before the @)" if name in _SECRETS else ""
            raise ValueError(f"It has no parameter {name!r}{hidden}; there are {', '.join(sorted(allowed))}.")
        if name in found:
            raise ValueError(f"It has the parameter {name!r} twice.")
        found[name] = value
    return found


def _flag(options: Mapping[str, str], name: str) -> bool:
    value = options.get(name, "0").lower()
    if value not in _YES | _NO:
        raise ValueError(f"{name} must be 1 or 0, not {value!r}.")
    return value in _YES


def _certificates(options: Mapping[str, str]) -> dict[str, str | bool]:
    found: dict[str, str | bool] = {name: options[name] for name in sorted(_CERTIFICATES & options.keys())}
    if "ssl_check_hostname" in found:
        found["ssl_check_hostname"] = _flag(options, "ssl_check_hostname")
    required = found.get("ssl_cert_reqs")
    if required is not None:
        found["ssl_cert_reqs"] = str(required).removeprefix("CERT_").lower()
        if found["ssl_cert_reqs"] not in ("required", "optional", "none"):
            raise ValueError("ssl_cert_reqs must be required, optional or none.")
    return found


def _number(text: str | None) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"The database must be a number, not {text!r}.")
    return int(text)


def _hosts(netloc: str, port: int, *, several: bool) -> tuple[tuple[str, int], ...]:
    found = []
    for each in netloc.split(","):
        match = re.fullmatch(r"(\[[^\]]+\]|[^:]*)(?::(\d{1,5}))?", each)
        if match is None:
            raise ValueError("A host is written as name:port.")
        found.append((match[1].strip("[]") or "localhost", int(match[2] or port)))
    if len(found) > 1 and not several:
        raise ValueError("It names several hosts: that is for sentinel:// and redis-cluster://.")
    return tuple(found)
