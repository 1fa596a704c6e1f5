"""``dag``: tasks that name what they come after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from asgiref.sync import sync_to_async

from ..backends.message import AFTER
from ..result import ResultSet
from .plan import Ends, Plan
from .sending import dispatch
from .signatures import Signature, checked

__all__ = ["DagResult", "dag"]


class dag:
    """A workflow built of named parts, of which each says what it comes after.

    ::

        flow = dag()
        flow.add("orders", load_orders.s())
        flow.add("stock", load_stock.s())
        flow.add("plan", plan.s(), after=["orders", "stock"])
        flow.add("clean", clean_up.si(), after="plan", always=True)
        result = flow()
        result["plan"].get(timeout=60)

    A part may be any signature, so also a chain, a group, a chord or a batch. What comes after a part is added after
    it, so there can be no circle. A dag itself is part of nothing else: what is to come before or after it is added to
    it.
    """

    #: What to do instead of making it part of something, for error messages.
    instead: ClassVar[str] = (
        "A dag is part of nothing else: add the rest to it; dag.add() takes chains, groups, chords and batches"
    )

    def __init__(self) -> None:
        self._parts: dict[str, tuple[Signature, tuple[str, ...] | str, bool]] = {}

    def add(self, name: str, sig: Any, *, after: str | Iterable[str] = (), always: bool = False) -> dag:
        """Add a part; return the whole.

        ``after`` names one part, whose result is its first argument, or several, of whose results it gets a list; an
        immutable signature gets nothing. It runs when all of them have succeeded; when one has not, it is not run, and
        ends with the same exception. With ``always`` it runs whatever became of them, and gets what did: a dict with
        ``id``, ``state``, and ``result`` or ``error`` for each.

        Raises ``ValueError`` for a name that is there already, one in ``after`` that is not, and ``always`` without
        ``after``; ``TypeError`` for what is no signature.
        """
        part = checked(sig, f"dag.add({name!r}, …) takes a signature, as task.s() returns it, not {sig!r}")
        if not name:
            raise ValueError("A part of a dag needs a name")
        if name in self._parts:
            raise ValueError(f"The dag has a part {name!r} already")
        before = after if isinstance(after, str) else tuple(after)
        unknown = [one for one in _names(before) if one not in self._parts]
        if unknown:
            known = ", ".join(map(repr, self._parts)) or "none yet"
            raise ValueError(f"{name!r} comes after {unknown[0]!r}, which the dag does not have; it has {known}")
        if always and not before:
            raise ValueError(f"{name!r} comes after nothing, so always=True means nothing")
        self._parts[name] = part, before, always
        return self

    def __call__(self) -> DagResult:
        """Send it."""
        return self.apply_async()

    delay = __call__

    def apply_async(self, **options: Any) -> DagResult:
        """Send it, all of it or nothing, in the caller's transaction; return the handles of its parts by name.

        ``options`` are those of all its tasks, as far as their own say nothing else; a ``countdown`` or an ``eta`` is
        for those that come first.
        Raises ``ValueError`` if it has no part.
        """
        if not self._parts:
            raise ValueError("The dag has no part")
        plan = Plan(options.pop("root_id", None), options.pop("parent_id", None))
        later = {key: value for key, value in options.items() if key not in ("countdown", "eta")}
        ends: dict[str, Ends] = {}
        results = {}
        for name, (part, after, always) in self._parts.items():
            sig = part.clone()
            results[name] = sig.freeze()
            prev = self._before(after, ends)
            if prev is not None and always:
                prev = plan.whatever(prev)
            first = len(plan.nodes)
            ends[name] = plan.add(sig, prev)
            for node in plan.nodes[first:]:
                node.options = {**(later if node.before else options), **node.options}
        done = dispatch(plan, DagResult(results), options)
        return DagResult(dict(zip(results, done.results, strict=True)))

    async def aapply_async(self, **options: Any) -> DagResult:
        """Send it from asynchronous code."""
        return await sync_to_async(self.apply_async)(**options)

    def __or__(self, other: Any) -> Any:
        raise TypeError(f"{self!r} | {other!r}: {self.instead}")

    def __ror__(self, other: Any) -> Any:
        raise TypeError(f"{other!r} | {self!r}: {self.instead}")

    @staticmethod
    def _before(after: tuple[str, ...] | str, ends: dict[str, Ends]) -> Ends | None:
        if isinstance(after, str):
            return ends[after]._replace(kind=AFTER)
        if not after:
            return None
        nodes = dict.fromkeys(node for name in after for node in ends[name].nodes)
        return Ends([ends[name].value for name in after], tuple(nodes), AFTER, ends[after[-1]].parent)

    def __repr__(self) -> str:
        parts = (f"{name}={part!r}" for name, (part, _, _) in self._parts.items())
        return f"dag({', '.join(parts)})"


class DagResult(ResultSet):
    """The results of the parts of a dag: ``result["name"]``."""

    def __init__(self, results: dict[str, Any]) -> None:
        super().__init__(results.values())
        self.names = list(results)

    def __getitem__(self, name: Any) -> Any:
        return self.results[self.names.index(name) if isinstance(name, str) else name]

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield the names and the handles of the parts, in the order in which they were added."""
        return zip(self.names, self.results, strict=True)


def _names(after: tuple[str, ...] | str) -> tuple[str, ...]:
    return (after,) if isinstance(after, str) else after
