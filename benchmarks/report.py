"""Tables of figures, ratios between contestants, and the budgets that the design sets itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.subjects import Figures

#: Figures by contestant.
Results = dict[str, Figures]

#: Figures beside which ours is given as a multiple, and whether more of it is better.
_COMPARED = {
    "throughput": {"tasks/s": True, "total µs": False},
    "limit": {"tasks/s": True, "total µs": False},
    "enqueue": {"one/s": True, "bulk/s": True},
    "latency": {"result p50 ms": False},
    "idle": {"worker % of a core": False},
    "beat": {},
    "memory": {"PSS MiB": False},
    "backlog": {},
    "redis-memory": {},
    "lease": {},
    "flow": {"total µs": False},
    "pools": {"total µs": False},
    "soak": {},
    "workflow": {"chord of 1,000 s": False, "chain of 100 s": False},
}


@dataclass(frozen=True)
class Budget:
    """One promise: ``value`` must be at least, or at most, ``limit``."""

    text: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Is the promise kept?"""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        share = f": {number(self.value / self.limit)} of the budget" if self.limit else ""
        verdict = "met" if self.met else f"short{share}"
        return f"{self.text} {sign} {number(self.limit)}: {number(self.value)}, {verdict}"


def medians(rounds: Sequence[Figures]) -> Figures:
    """Return the median of each figure over the rounds; ``None`` where no round gave it."""
    merged: Figures = {}
    for key in rounds[0]:
        values = [value for figures in rounds if (value := figures[key]) is not None]
        merged[key] = median(values) if values else None
    return merged


def table(subject: str, ours: str, results: Results) -> str:
    """Return the figures as a text table with ours first, and how many times better than each ours is."""
    compared = {key: more for key, more in _COMPARED[subject].items() if key in results[ours]}
    columns = list(dict.fromkeys(key for figures in results.values() for key in figures))
    head = ["", *columns, *(f"ours, {key}" for key in compared)]
    lines = [head]
    for name, figures in results.items():
        cells = [number(figures.get(key)) for key in columns]
        ratios = [ratio(results[ours].get(key), figures.get(key), more) for key, more in compared.items()]
        lines.append([name, *cells, *("" if name == ours else _times(each) for each in ratios)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths[0] *= -1  # names to the left, figures to the right
    aligned = ["  ".join(map(_aligned, line, widths)) for line in lines]
    return "\n".join([aligned[0], "-" * len(aligned[0]), *aligned[1:]])


def _times(value: float | None) -> str:
    return "-" if value is None else f"{number(value)}x"


def _aligned(cell: str, width: int) -> str:
    return cell.rjust(width) if width > 0 else cell.ljust(-width)


def ratio(ours: float | None, theirs: float | None, more_is_better: bool = True) -> float | None:
    """Return how many times better ours is; ``None`` where one has no such figure."""
    if not ours or not theirs:
        return None
    return ours / theirs if more_is_better else theirs / ours


def number(value: float | None) -> str:
    """Return three significant digits, or all of them before the point; ``-`` for none."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def budgets(subject: str, broker: str, ours: str, results: Results) -> Iterable[Budget]:
    """Yield what DESIGN promises for this subject on this broker and can be told from these results."""
    mine = {key: value for key, value in results[ours].items() if value is not None}
    bare = results.get("bare", {})
    celery = results.get("celery", {})
    if subject in ("throughput", "limit"):
        if rate := ratio(mine["tasks/s"], celery.get("tasks/s")):
            yield Budget(
                "tasks/s against Celery + Redis", rate, {"sqlite": 35.0, "redis": 40.0}.get(broker, 30.0), at_least=True
            )
        yield Budget(
            "CPU µs per task, worker and server", mine["total µs"], {"sqlite": 90.0, "redis": 80.0}.get(broker, 120.0)
        )
        if share := ratio(mine["total µs"], bare.get("total µs")):
            yield Budget("CPU against the bare loop", share, 2.0)
    elif subject == "enqueue" and broker == "postgresql":
        if share := ratio(bare.get("one/s"), mine["one/s"]):
            yield Budget("time of delay() against a bare INSERT with commit", share, 1.3)
        yield Budget("tasks/s in bulk", mine["bulk/s"], 20_000, at_least=True)
    elif subject == "enqueue" and broker == "sqlite":
        yield Budget("tasks/s one by one", mine["one/s"], 4_000, at_least=True)
    elif subject == "latency":
        yield Budget("start p50 ms", mine["start p50 ms"], 2.0)
        yield Budget("start p99 ms", mine["start p99 ms"], 8.0)
        yield Budget("result p50 ms", mine["result p50 ms"], 4.0)
    elif subject == "workflow":
        limits = {"chord of 1,000 s": 0.5, "chain of 100 s": 0.3, "50 chords of 100 sent s": 10.0, "peak MiB": 200.0}
        for name, limit in limits.items():
            if name in mine:
                yield Budget(name, mine[name], limit)
    elif subject == "idle":
        yield Budget("% of a core, worker and server", mine["worker % of a core"] + mine["server % of a core"], 0.3)
        if broker == "postgresql":
            yield Budget("statements a minute", mine["statements/min"], 30)
    elif subject == "beat":
        yield Budget("s until all that were due are sent", mine["all sent after s"], 2.0)
        idle = mine["beat % of a core"] + mine["server % of a core"]
        yield Budget("% of a core, idle beat and server", idle, 0.3)
    elif subject == "memory" and (limit := celery.get("PSS MiB")):
        yield Budget("PSS MiB against Celery's", mine["PSS MiB"], limit)
    elif subject == "flow":
        if (cost := results.get("limits of other tasks", {}).get("more % p50")) is not None:
            yield Budget("CPU per task while other tasks are limited, % more than with no limits", cost, 2.0)
    elif subject == "redis-memory":
        for name, figures in results.items():
            if name != ours and (cost := ratio(figures.get("total µs"), mine["total µs"])):
                yield Budget(f"CPU per task with {name}, against nothing else", cost, 1.1)
            for what in ("keys left", "channels"):
                if (left := figures.get(what)) is not None:
                    yield Budget(f"{what} of {name}", left, 0)
    elif subject == "lease":
        for name, figures in results.items():
            for what, limit in {"most of one": 1, "not run": 0}.items():
                if (runs := figures[what]) is not None:
                    yield Budget(f"{what}, {name}", runs, limit)
    elif subject == "soak":
        yield Budget("MiB grown after the first tenth", mine["growth MiB"], 16.0)
    elif subject == "backlog":
        for name, figures in results.items():
            if name != ours and (cost := ratio(figures["total µs"], mine["total µs"])):
                yield Budget(f"CPU per task with {name}, against empty tables", cost, 1.1)
