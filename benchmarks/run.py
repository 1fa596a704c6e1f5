"""One measurement of one contestant in a process of its own: ``python -m benchmarks.run '{…}'`` prints JSON.

``python -m benchmarks`` starts it with the interpreter of the environment that the contestant lives in.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import contestant, extremes, flow, profile, servers, subjects

SUBJECTS: dict[str, Callable[..., dict[str, Any]]] = {
    "throughput": subjects.throughput,
    "limit": subjects.throughput,
    "enqueue": subjects.enqueue,
    "latency": subjects.latency,
    "idle": subjects.idle,
    "beat": subjects.beat,
    "memory": subjects.memory,
    "backlog": extremes.backlog,
    "redis-memory": extremes.redis_memory,
    "lease": extremes.lease,
    "flow": flow.flow,
    "pools": subjects.throughput,
    "soak": extremes.soak,
    "workflow": subjects.workflow,
    "profile": profile.profile,
}


def main() -> None:
    """Do what the JSON object in the first argument asks for."""
    order = json.loads(sys.argv[1])
    server = servers.KINDS[order["kind"]](Path(order["directory"]), order["port"], order["pid"])
    made = contestant.load(order["contestant"], server.url)
    try:
        figures = SUBJECTS[order["subject"]](made, server, **order["options"])
    finally:
        made.close()
    package = made.distribution and _version(made.distribution)
    print(json.dumps({"version": package, "found": figures}))


def _version(distribution: str) -> str:
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:  # ours, run from its checkout
        return distribution


if __name__ == "__main__":
    main()
