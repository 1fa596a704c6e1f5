"""What followed from a task, as a tree: its children, theirs, and so on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from ..exceptions import IncompleteStream
from ..utils.graph import DependencyGraph


def iterdeps(result: Any, intermediate: bool) -> Iterator[tuple[Any, Any]]:
    """Yield a result and what is below it, the near before the far, as pairs ``(parent, result)``."""
    rest = deque([(None, result)])
    while rest:
        parent, one = rest.popleft()
        yield parent, one
        if one.ready():
            rest.extend((one, child) for child in one.children or ())
        elif not intermediate:
            raise IncompleteStream(f"{one.id} is not done: what it sends is not known yet")


def build_graph(result: Any, intermediate: bool) -> DependencyGraph:
    """Return a result and what is below it as a graph."""
    graph = DependencyGraph(root=str(result.id))
    for parent, one in iterdeps(result, intermediate):
        graph.add_arc(one)
        if parent is not None:
            graph.add_edge(parent, one)
    return graph
