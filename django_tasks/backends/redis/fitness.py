"""Is a server fit to carry tasks?"""

from __future__ import annotations

from typing import NamedTuple

from django.utils.translation import gettext_noop

from ...sentences import Sentence
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
        found.append(
            Unfit(
                Sentence(
                    gettext_noop("%(server)s is version %(version)s; commands of %(needed)s are needed."),
                    server=server.name,
                    version=_text(version),
                    needed=_text(OLDEST),
                ),
                Sentence(gettext_noop("Upgrade it, or use Valkey.")),
            )
        )
    memory = server.info("memory")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy.startswith("allkeys-"):
        found.append(
            Unfit(
                Sentence(
                    gettext_noop(
                        "%(server)s has maxmemory-policy %(policy)s: when its memory is full it deletes tasks."
                    ),
                    server=server.name,
                    policy=policy,
                ),
                Sentence(
                    gettext_noop(
                        "Give tasks a server of their own with maxmemory-policy noeviction; a cache may keep its own."
                    )
                ),
            )
        )
    elif policy.startswith("volatile-"):
        found.append(
            Unfit(
                Sentence(
                    gettext_noop(
                        "%(server)s has maxmemory-policy %(policy)s: when its memory is full it forgets what was "
                        "revoked, and results that are kept there."
                    ),
                    server=server.name,
                    policy=policy,
                ),
                Sentence(gettext_noop("Set maxmemory-policy noeviction.")),
                fatal=False,
            )
        )
    if version < SPARES and int(memory.get("maxmemory", 0)):
        found.append(
            Unfit(
                Sentence(
                    gettext_noop(
                        "%(server)s is version %(version)s with a maxmemory: when that is full, workers cannot take or "
                        "end tasks, so it does not get empty by itself."
                    ),
                    server=server.name,
                    version=_text(version),
                ),
                Sentence(
                    gettext_noop(
                        "Upgrade it to %(version)s or newer, or use Valkey; until then watch its memory.",
                    ),
                    version=_text(SPARES),
                ),
                fatal=False,
            )
        )
    return found


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
