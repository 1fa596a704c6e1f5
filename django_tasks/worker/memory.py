"""How much memory a process holds, and how much processor time it has used."""

from __future__ import annotations

import os
import sys


def resident_kib() -> int:
    """Return this process's resident memory in KiB; where the system does not tell, its peak so far."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def usage(pid: int) -> dict[str, float] | None:
    """Return the resident memory in KiB and the processor time in seconds of a process; ``None`` where the system does
    not tell."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            # The name in the second field, in parentheses, may hold anything.
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    user, system, pages = int(fields[11]), int(fields[12]), int(fields[21])
    kib = pages * os.sysconf("SC_PAGE_SIZE") // 1024
    return {"memory_kib": kib, "cpu_seconds": (user + system) / os.sysconf("SC_CLK_TCK")}
