"""Is a server fit to carry tasks?"""

from __future__ import annotations

from .server import OLDEST, Server


def problems(server: Server) -> list[tuple[str, str]]:
    """Return what is wrong with a server, each with its cure. Raises ``OperationalError`` if it cannot be asked."""
    found = []
    if server.version() < OLDEST:
        found.append(
            (
                f"{server.name} is version {'.'.join(map(str, server.version()))}; commands of"
                f" {'.'.join(map(str, OLDEST))} are needed.",
                "Upgrade it, or use Valkey.",
            )
        )
    policy = str(server.info("memory").get("maxmemory_policy", "noeviction"))
    if policy.startswith("allkeys-"):
        found.append(
            (
                f"{server.name} has maxmemory-policy {policy}: when its memory is full it deletes tasks.",
                "Give tasks a server of their own with maxmemory-policy noeviction; a cache may keep its own.",
            )
        )
    return found
