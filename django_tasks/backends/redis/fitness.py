"""Is a server fit to carry tasks?"""

from __future__ import annotations

from typing import NamedTuple

from .server import OLDEST, SPARES, Server


class Unfit(NamedTuple):
    """Something that is wrong with a server."""

    problem: str
    cure: str
    #: Is it so wrong that no worker is to use it?
    fatal: bool = True


def problems(server: Server) -> list[Unfit]:
    """Return what is wrong with a server. Raises ``OperationalError`` if it cannot be asked."""
    found = []
    version = server.version()
    if version < OLDEST:
        text = f"{server.name} is version {_text(version)}; commands of {_text(OLDEST)} are needed."
        found.append(Unfit(text, "Upgrade it, or use Valkey."))
    memory = server.info("memory")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy.startswith("allkeys-"):
        found.append(
            Unfit(
                f"{server.name} has maxmemory-policy {policy}: when its memory is full it deletes tasks.",
                "Give tasks a server of their own with maxmemory-policy noeviction; a cache may keep its own.",
            )
        )
    elif policy.startswith("volatile-"):
        found.append(
            Unfit(
                f"{server.name} has maxmemory-policy {policy}: when its memory is full it forgets what was revoked,"
                " and results that are kept there.",
                "Set maxmemory-policy noeviction.",
                fatal=False,
            )
        )
    if version < SPARES and int(memory.get("maxmemory", 0)):
        found.append(
            Unfit(
                f"{server.name} is version {_text(version)} with a maxmemory: when that is full, workers cannot take or"
                " end tasks, so it does not get empty by itself.",
                f"Upgrade it to {_text(SPARES)} or newer, or use Valkey; until then watch its memory.",
                fatal=False,
            )
        )
    return found


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
