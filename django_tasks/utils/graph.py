"""What depends on what, as a graph that can be drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO

__all__ = ["DependencyGraph"]


class DependencyGraph:
    """Nodes and what each leads to, with the methods of Celery's class of this name."""

    def __init__(self, root: str | None = None) -> None:
        self._root = root
        self._after: dict[Any, list[Any]] = {}

    def add_arc(self, node: Any) -> None:
        """Add a node."""
        self._after.setdefault(node, [])

    def add_edge(self, before: Any, after: Any) -> None:
        """Say that one leads to another; both are in there."""
        self._after[before].append(after)

    def edges(self) -> list[tuple[Any, Any]]:
        """Return the pairs of nodes of which the first leads to the second."""
        return [(before, after) for before, others in self._after.items() for after in others]

    def valency_of(self, node: Any) -> int:
        """Return how many nodes can be reached from here, itself included."""
        return 1 + sum(self.valency_of(one) for one in self._after[node])

    def topsort(self) -> list[Any]:
        """Return the nodes so that each comes after what leads to it."""
        order: list[Any] = []
        seen: set[Any] = set()

        def visit(node: Any) -> None:
            if node not in seen:
                seen.add(node)
                for one in self._after[node]:
                    visit(one)
                order.append(node)

        for node in self._after:
            visit(node)
        return order[::-1]

    def to_dot(self, file: TextIO, formatter: Any = None) -> None:
        """Write it in the language of Graphviz. ``formatter`` is accepted for Celery's sake."""
        file.write("digraph dependencies {\n")
        for node in self._after:
            shape = ", shape=oval" if str(node) == self._root else ""
            file.write(f'    "{node}" [label="{node}"{shape}];\n')
        for before, after in self.edges():
            file.write(f'    "{before}" -> "{after}";\n')
        file.write("}\n")

    def items(self) -> Any:
        """Return the nodes with what each leads to."""
        return self._after.items()

    def __getitem__(self, node: Any) -> list[Any]:
        return self._after[node]

    def __contains__(self, node: object) -> bool:
        return node in self._after

    def __iter__(self) -> Iterator[Any]:
        return iter(self._after)

    def __len__(self) -> int:
        return len(self._after)

    def __repr__(self) -> str:
        return "\n".join(f"{node}({len(after)})" for node, after in self._after.items())
