"""The shape of a workflow: like members in stacks, in layers by the longest way to each, ordered so that few lines
cross."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from .members import Member, in_order

#: So many like members stand side by side; more become one stack.
MOST_ALIKE: Final = 12
#: Nodes and lines that are drawn.
MOST_NODES, MOST_LINES = 300, 1_000
#: Times that the layers are ordered by their neighbours, there and back.
SWEEPS: Final = 4


@dataclass(slots=True)
class Node:
    """A member, or a stack of like members."""

    key: str
    members: list[Member]
    layer: int
    #: The nodes before it.
    before: list[str] = field(default_factory=list)

    @property
    def is_stack(self) -> bool:
        """Does it stand for several?"""
        return len(self.members) > 1

    @property
    def first(self) -> Member:
        """The member that it is, or that stands for the others."""
        return self.members[0]

    def counts(self) -> dict[str, int]:
        """Return how many of its members are in each state."""
        return dict(Counter(one.state for one in self.members))


@dataclass(frozen=True, slots=True)
class Shape:
    """A workflow as it is drawn."""

    #: By their keys, in the order of the layers.
    nodes: Mapping[str, Node]
    #: Keys of nodes in the order in which they stand. A pair of keys and a number is the way of a line through a layer.
    layers: Sequence[Sequence[Place]]
    #: Nodes, or lines, that are not drawn.
    hidden: int

    def lines(self) -> list[tuple[Place, ...]]:
        """Return the lines, each from node to node by the places in the layers between."""
        found: list[tuple[Place, ...]] = []
        for node in self.nodes.values():
            for key in node.before:
                between = range(self.nodes[key].layer + 1, node.layer)
                found.append((key, *((key, node.key, layer) for layer in between), node.key))
        return found


#: What stands in a layer: a node, or a line on its way from one to another through this layer.
Place = str | tuple[str, str, int]


def shape(rows: Iterable[Member]) -> Shape:
    """Return how these members are drawn."""
    members = {one.key: one for one in in_order(list(rows))}
    before = {key: _before(one, members) for key, one in members.items()}
    layers = _layers(before)
    nodes = _stacked(members, before, layers)
    drawn = dict(list(nodes.items())[:MOST_NODES])
    hidden = len(nodes) - len(drawn)
    lines = 0
    for node in drawn.values():
        kept = [key for key in node.before if key in drawn][: max(0, MOST_LINES - lines)]
        lines += len(kept)
        node.before = kept
    return Shape(drawn, _ordered(drawn), hidden)


def _before(one: Member, members: Mapping[str, Member]) -> list[str]:
    """Return what comes before a member, of what is there: what it waited for, else who sent it, and what it runs
    again."""
    found = [key for key in one.inputs if key in members]
    if not one.before and one.parent in members:
        found.append(str(one.parent))
    if one.original in members:
        found.append(str(one.original))
    return [key for key in dict.fromkeys(found) if key != one.key]


def _layers(before: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the length of the longest way to each; what is in a circle, which nobody of ours draws, is in front."""
    after: dict[str, list[str]] = {key: [] for key in before}
    for key, others in before.items():
        for other in others:
            after[other].append(key)
    open_ = {key: len(others) for key, others in before.items()}
    ready = [key for key, count in open_.items() if not count]
    found = dict.fromkeys(before, 0)
    for key in ready:  # grows while it is walked
        for follower in after[key]:
            found[follower] = max(found[follower], found[key] + 1)
            open_[follower] -= 1
            if not open_[follower]:
                ready.append(follower)
    for key in before.keys() - set(ready):
        found[key] = 0
    return found


def _stacked(
    members: Mapping[str, Member], before: Mapping[str, Sequence[str]], layers: Mapping[str, int]
) -> dict[str, Node]:
    """Return nodes, layer by layer: members of one name with the same before them are alike."""
    nodes: dict[str, Node] = {}
    node_of: dict[str, str] = {}
    by_layer: dict[int, list[str]] = {}
    for key in members:
        by_layer.setdefault(layers[key], []).append(key)
    for layer in sorted(by_layer):
        alike: dict[tuple[str, frozenset[str]], list[str]] = {}
        for key in by_layer[layer]:
            ways = frozenset(node_of[other] for other in before[key] if layers[other] < layer)
            alike.setdefault((members[key].name, ways), []).append(key)
        for (_name, ways), keys in alike.items():
            several = [keys] if len(keys) > MOST_ALIKE else [[key] for key in keys]
            for some in several:
                node = Node(some[0], [members[key] for key in some], layer, sorted(ways))
                nodes[node.key] = node
                node_of |= dict.fromkeys(some, node.key)
    return nodes


def _ordered(nodes: Mapping[str, Node]) -> list[list[Place]]:
    """Return the layers, each in an order in which its places stand near those before and behind them."""
    layers: list[list[Place]] = [[] for _ in range(1 + max((node.layer for node in nodes.values()), default=-1))]
    before: dict[Place, list[Place]] = {}
    after: dict[Place, list[Place]] = {}
    for node in nodes.values():
        layers[node.layer].append(node.key)
    for node in nodes.values():
        for key in node.before:
            way: list[Place] = [key]
            for layer in range(nodes[key].layer + 1, node.layer):
                way.append((key, node.key, layer))
                layers[layer].append(way[-1])
            way.append(node.key)
            for one, other in pairwise(way):
                after.setdefault(one, []).append(other)
                before.setdefault(other, []).append(one)
    for _ in range(SWEEPS):
        for near, along in ((before, layers), (after, layers[::-1])):
            _sweep(along, near)
    return layers


def _sweep(layers: Sequence[list[Place]], near: Mapping[Place, Sequence[Place]]) -> None:
    """Sort each layer by the middle of what its places are tied to in the one that was sorted before."""
    at: dict[Place, float] = {}
    for layer in layers:
        own = {place: (index + 0.5) / len(layer) for index, place in enumerate(layer)}
        middle = {
            place: sum(at[one] for one in tied) / len(tied) if (tied := near.get(place)) else own[place]
            for place in layer
        }
        layer.sort(key=middle.__getitem__)
        at |= {place: (index + 0.5) / len(layer) for index, place in enumerate(layer)}
