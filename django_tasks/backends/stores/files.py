"""Values as files of one of Django's storages, which keeps them until they are deleted."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from django.core.files.base import ContentFile
from django.core.files.storage import storages

from .base import ResultStore

#: The alias in STORAGES that large results go to.
ALIAS = "task_results"


class FileStore(ResultStore):
    """The alias ``task_results`` of ``STORAGES``."""

    def save(self, values: Mapping[str, str], lifetime: float | None) -> Mapping[str, str]:
        storage = storages[ALIAS]
        # Directories of many thousand files are slow in places: the end of an id is random.
        names = {key: f"{key.partition('.')[0][-2:]}/{key}" for key in values}
        for name in names.values():
            storage.delete(name)  # saved before, and its outcome was not
        return {key: storage.save(names[key], ContentFile(value.encode())) for key, value in values.items()}

    def load(self, reference: str) -> str | None:
        try:
            with storages[ALIAS].open(reference) as file:
                return bytes(file.read()).decode()
        except FileNotFoundError:
            return None

    def delete(self, references: Collection[str]) -> None:
        for one in references:
            storages[ALIAS].delete(one)
