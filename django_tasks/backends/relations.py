"""Reading how tasks are related: what one takes in, what it sent, and groups that were saved."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import Model

from ..ids import dashed, key_of
from ..models import Edge, SavedGroup, Task, TaskResult
from ..querysets import DatabaseNow
from .message import AFTER, JOIN_TASK

#: Ids per query.
MANY = 500

#: A join's options may be long, and nobody needs those of the others.
_INPUTS = f"""
SELECT id, custom_id, state, result, result_encoding, exception, CASE WHEN name = '{JOIN_TASK}' THEN options END
FROM {TaskResult._meta.db_table} WHERE id IN ({{marks}})
"""  # noqa: S608 - constants


class Input(NamedTuple):
    """What became of a task that another one takes in."""

    state: str
    #: Serialized.
    result: str | None
    encoding: str
    #: The id by which its caller knows it.
    task_id: str
    #: Class and message of the exception in one line.
    exception: str = ""
    #: Of a join: the value that it stands for.
    stands_for: Any = None


class Child(NamedTuple):
    """A task that another one sent, or that follows it."""

    task_id: str
    name: str
    #: The id of the group that it is a member of, and its place in there.
    group: tuple[str, int] | None


class Row(NamedTuple):
    """A call that is not done yet."""

    key: str
    #: ``task_id``, ``name``, ``queue``, ``priority``, ``body``, ``encoding`` and ``immutable``.
    record: dict[str, Any]


class Relations:
    """Questions to the to-do list and the ledger under one Django alias, in the caller's own transaction."""

    alias: str

    def inputs(self, keys: Iterable[str]) -> dict[str, Input]:
        """Return what the ledger says of these tasks; those that are not there are left out."""
        connection = connections[self.alias]
        to_column: Any = TaskResult._meta.pk
        found = {}
        for some in parts(keys):
            params = [to_column.get_db_prep_value(key, connection) for key in some]
            with connection.cursor() as cursor:  # in SQL: making the same query anew costs more than running it
                cursor.execute(_INPUTS.format(marks=", ".join(["%s"] * len(params))), params)
                for id_, custom_id, state, result, encoding, exception, options in cursor.fetchall():
                    key = dashed(id_)
                    stands_for = json.loads(options)["node"]["in"] if options else None
                    found[key] = Input(state, result, encoding, custom_id or key, exception, stands_for)
        return found

    def children(self, root: str, parent: str) -> list[Child]:
        """Return what has this parent, in the order in which it was stored."""
        rows = {}
        models: Sequence[type[Model]] = (Task, TaskResult)
        for model in models:
            found = model._default_manager.using(self.alias).filter(root_id=root, parent_id=parent)
            for id_, custom_id, name, options in found.values_list("pk", "custom_id", "name", "options"):
                if name != JOIN_TASK:
                    rows[str(id_)] = Child(custom_id or str(id_), name, _group(options))
        return [rows[key] for key in sorted(rows)]

    def following(self, task_id: str) -> list[Row]:
        """Return what runs after a task alone, in the order in which that was stored."""
        edges = Edge.objects.using(self.alias).filter(before_id=key_of(task_id), kind=AFTER).order_by("id")
        keys = list(edges.values_list("after_id", flat=True))
        found = {one.pk: one for one in Task.objects.using(self.alias).filter(pk__in=keys)}
        rows = []
        for key in keys:
            one = found.get(key)
            if one is not None:
                immutable = not (one.option_values.get("node") or {}).get("takes")
                fields = ("task_id", "name", "queue", "priority", "body", "encoding")
                rows.append(Row(str(key), {**{name: getattr(one, name) for name in fields}, "immutable": immutable}))
        return rows

    def save_group(self, group_id: str, members: str) -> None:
        """Keep what a group consists of."""
        SavedGroup.objects.using(self.alias).update_or_create(
            id=key_of(group_id), defaults={"members": members, "created_at": DatabaseNow()}
        )

    def restore_group(self, group_id: str) -> str | None:
        """Return what was kept of a group, ``None`` if nothing was."""
        return (
            SavedGroup.objects.using(self.alias).filter(pk=key_of(group_id)).values_list("members", flat=True).first()
        )

    def delete_group(self, group_id: str) -> None:
        """Forget what was kept of a group."""
        SavedGroup.objects.using(self.alias).filter(pk=key_of(group_id)).delete()


def _group(options: str | None) -> tuple[str, int] | None:
    found = json.loads(options).get("group") if options and '"group":' in options else None
    return (found[0], found[1]) if found else None


def parts(keys: Iterable[str]) -> Iterator[list[str]]:
    """Cut ids into as many as one query takes."""
    rest = iter(keys)
    while some := list(islice(rest, MANY)):
        yield some
