"""Random canvases: a recipe is plain data, and is built with Celery's names or with ours."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

#: What a recipe may be built with: ours, or Celery's.
Recipe = tuple[Any, ...]

_calls = st.one_of(
    st.tuples(st.just("call"), st.lists(st.integers(0, 9), max_size=2), st.booleans()),
    st.tuples(st.just("linked"), st.integers(0, 9), st.sampled_from(["link", "link_error"])),
)


def _larger(parts: st.SearchStrategy[Recipe]) -> st.SearchStrategy[Recipe]:
    several = st.lists(parts, max_size=3)
    return st.one_of(
        st.tuples(st.just("chain"), several),
        st.tuples(st.just("group"), several),
        st.tuples(st.just("group of one"), parts),
        st.tuples(st.just("chord"), several, parts),
        st.tuples(st.just("or"), parts, parts),
        st.tuples(st.just("clone"), parts),
        st.tuples(st.just("options"), parts, st.integers(0, 9)),
    )


#: Canvases of depth 0 to about 4.
recipes: st.SearchStrategy[Recipe] = st.recursive(_calls, _larger, max_leaves=8)


def build(recipe: Recipe, names: Any) -> Any:
    """Return the canvas of a recipe. What one of both refuses to build raises there, and has to with the other."""
    kind, *rest = recipe
    if kind == "call":
        args, immutable = rest
        return names.add.si(*args) if immutable else names.add.s(*args)
    if kind == "linked":
        sig = names.add.s(rest[0])
        getattr(sig, rest[1])(names.noop.s(rest[0]))
        return sig
    if kind == "or":
        return build(rest[0], names) | build(rest[1], names)
    if kind == "clone":
        return build(rest[0], names).clone()
    if kind == "options":
        return build(rest[0], names).set(priority=rest[1])
    if kind == "group of one":
        return names.group(build(rest[0], names))
    parts = [build(one, names) for one in rest[0]]
    if kind == "chord":
        return names.chord(parts, build(rest[1], names))
    return getattr(names, kind)(*parts) if len(parts) != 1 else getattr(names, kind)(parts)
