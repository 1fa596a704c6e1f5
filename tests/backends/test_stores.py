"""Where the values of results lie: one suite for every store, and what the rest of the package makes of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import caches
from django.core.files.storage import storages
from django.db import transaction
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_tasks import AsyncResult, chain, display, group, shared_task
from django_tasks.backends import close_all, get_broker, stores
from django_tasks.backends.stores import ResultStore
from django_tasks.backends.stores.cache import CacheStore
from django_tasks.backends.stores.files import ALIAS, FileStore
from django_tasks.backends.stores.redis import RedisStore
from django_tasks.checks import check_results
from django_tasks.conf import check_settings
from django_tasks.conf import settings as tasks_settings
from django_tasks.exceptions import OperationalError, UnknownResult
from django_tasks.ids import new_id
from django_tasks.models import TaskResult
from tests.app.tasks import add, echo, fail
from tests.backends.calls import success
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.inprocess import Worker
from tests.servers import free_port

CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "results"},
    "none": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
}


@shared_task(atomic=True)
def whole() -> str:
    return "whole"


class Shelf(ResultStore):
    """One of the tests' own."""

    kept: dict[str, str] = {}

    def save(self, values: Mapping[str, str], lifetime: float | None) -> Mapping[str, str]:
        self.kept.update({f"shelf/{key}": value for key, value in values.items()})
        return {key: f"shelf/{key}" for key in values}

    def load(self, reference: str) -> str | None:
        return self.kept.get(reference)

    def delete(self, references: Collection[str]) -> None:
        for one in references:
            self.kept.pop(one, None)


class NoStore:
    """It has no methods of a store."""


class BrokenShelf(Shelf):
    """It cannot be reached."""

    def save(self, values: Mapping[str, str], lifetime: float | None) -> Mapping[str, str]:
        raise ConnectionError("the shelf is gone")

    def load(self, reference: str) -> str | None:
        raise ConnectionError("the shelf is gone")


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[None]:
    """Give caches and a storage."""
    file_storage = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(tmp_path / "results")},
    }
    with override_settings(CACHES=CACHES, STORAGES={**settings.STORAGES, ALIAS: file_storage}):
        yield
        caches["default"].clear()
        Shelf.kept.clear()


KINDS = ("redis", "cache", "file", "own")


@pytest.fixture
def make(sites: None, redis_url: str) -> Any:
    """Give what makes a store of a kind."""
    makers = {
        "redis": lambda: RedisStore(redis_url),
        "cache": lambda: CacheStore("default"),
        "file": FileStore,
        "own": Shelf,
    }
    return lambda kind: makers[kind]()


@pytest.mark.parametrize("kind", KINDS)
class TestStore:
    """The contract."""

    @pytest.fixture
    def store(self, make: Any, kind: str) -> Iterator[ResultStore]:
        store = make(kind)
        yield store
        store.close()

    def test_what_was_saved_is_found_by_its_reference(self, store: ResultStore) -> None:
        values = {f"{new_id()}.1": '"Zwölf \U0001f33e\\u0000"', f"{new_id()}.12": "x" * 300_000, f"{new_id()}.2": ""}
        references = store.save(values, 60.0)
        assert references.keys() == values.keys()
        assert {key: store.load(references[key]) for key in values} == values
        assert all(len(one) <= 200 for one in references.values())

    def test_saving_twice_is_the_same_as_once(self, store: ResultStore) -> None:
        key = f"{new_id()}.1"
        for _ in range(2):
            reference = store.save({key: "[1]"}, None)[key]
        assert store.load(reference) == "[1]"
        store.delete([reference])
        assert store.load(reference) is None

    def test_what_is_not_there_is_no_error(self, store: ResultStore) -> None:
        assert store.load("ab/nobody.1") is None
        store.delete(["ab/nobody.1"])
        assert store.save({}, 1.0) == {}
        store.delete([])

    def test_it_works_again_after_it_was_closed(self, store: ResultStore) -> None:
        key = f"{new_id()}.1"
        reference = store.save({key: "1"}, None)[key]
        store.close()
        assert store.load(reference) == "1"


@pytest.mark.parametrize("kind", ["redis", "cache"])
def test_a_value_is_forgotten_when_its_time_is_up(make: Any, kind: str) -> None:
    store = make(kind)
    references = store.save({"short.1": "1", "long.1": "2"}, 60.0) | store.save({"short.1": "1"}, 0.05)
    eventually(lambda: store.load(references["short.1"]) is None)
    assert store.load(references["long.1"]) == "2"
    store.close()


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text: str) -> None:
    with override_settings(CACHES=CACHES):
        store = CacheStore("default")
        assert store.load(store.save({"k.1": text}, None)["k.1"]) == text


@pytest.fixture
def configure(sites: None, database: TestDatabase) -> Iterator[Any]:
    """Give ``configure(**values)``, which sets ``DJANGO_TASKS`` for the rest of the test."""
    chosen = override_settings()
    chosen.enable()

    def set_them(**values: Any) -> None:
        nonlocal chosen
        chosen.disable()
        chosen = override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, **values})
        chosen.enable()
        close_all()

    yield set_them
    close_all()
    chosen.disable()


@pytest.fixture
def backends(redis_url: str) -> dict[str, str]:
    """Give a ``RESULT_BACKEND`` of each kind."""
    return {"redis": redis_url, "cache": "cache://default", "own": f"{__name__}.Shelf"}


@pytest.mark.parametrize("kind", ["redis", "cache", "own"])
def test_a_result_lies_there_and_is_read_as_ever(configure: Any, backends: dict[str, str], kind: str) -> None:
    configure(RESULT_BACKEND=backends[kind])
    worker = Worker()
    plain, nothing, failed = echo.delay({"a": [1, "two"]}), echo.delay(None), fail.delay("no")
    worker.drain()
    assert plain.get(timeout=5) == {"a": [1, "two"]}
    assert (plain.state, nothing.get(timeout=5), failed.state) == ("SUCCESS", None, "FAILURE")
    line = TaskResult.objects.get(pk=plain.id)
    assert line.result_encoding == "store:"
    assert "two" not in str(line.result)
    assert display.outcome(line, full=False).text == "…"
    assert "two" in display.outcome(line, full=True).text
    again = [AsyncResult[Any](one.id).get(timeout=5) for one in (plain, nothing)]
    assert again == [plain.result, None]
    with pytest.raises(ValueError, match="no"):
        failed.get(timeout=5)


@pytest.mark.databases("sqlite")
def test_workflows_take_their_inputs_from_there(configure: Any, backends: dict[str, str]) -> None:
    configure(RESULT_BACKEND=backends["redis"])
    sent = chain(add.s(1, 2), group(add.s(10), add.s(20)), echo.s()).delay()
    Worker().drain()
    assert sent.get(timeout=5) == [13, 23]
    assert set(TaskResult.objects.exclude(name="django_tasks.join").values_list("result_encoding", flat=True)) == {
        "store:"
    }


@pytest.mark.databases("sqlite")
def test_a_large_result_is_a_file_and_a_small_one_is_not(configure: Any, tmp_path: Path) -> None:
    configure(RESULT_STORAGE_THRESHOLD=1_000)
    small, large = echo.delay("s" * 900), echo.delay("l" * 1_100)
    Worker().drain()
    encodings = dict(TaskResult.objects.values_list("pk", "result_encoding"))
    assert {str(key): value for key, value in encodings.items()} == {small.id: "", large.id: "file:"}
    assert (small.get(timeout=5), large.get(timeout=5)) == ("s" * 900, "l" * 1_100)
    [file] = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert "lll" in file.read_text()
    large.forget()
    assert not file.exists()


@pytest.mark.parametrize("kind", ["database", "redis"])
@pytest.mark.parametrize("atomic", [False, True])
def test_the_value_of_a_refused_outcome_is_not_kept(
    configure: Any, redis_url: str, tmp_path: Path, kind: str, atomic: bool
) -> None:
    """Its lease was lost; what was stored before, and is stored once more, keeps its value."""
    configure(BROKER_URL="database://" if kind == "database" else redis_url, RESULT_STORAGE_THRESHOLD=1)
    sent = echo.delay("x" * 10)
    broker, worker = get_broker(), Worker()
    outcomes = []
    for _ in range(2):
        claimed = worker.claim()
        assert claimed is not None
        outcomes.append(success(claimed, result='"xxxxxxxxxx"'))
        if len(outcomes) == 1:
            broker.lose(worker.holder, [sent.id], max_losses=3, reason="gone")
    stale, good = outcomes
    assert broker.step([good], holder=worker.holder).refused == frozenset()
    if atomic:
        with transaction.atomic():
            assert not broker.finish_within(stale, "worker@test")
    else:
        assert broker.step([stale], holder=worker.holder).refused == {sent.id}
    broker.step([replace(good)], holder=worker.holder)
    [file] = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert file.name == f"{sent.id}.2"
    assert sent.get(timeout=5) == "xxxxxxxxxx"


@pytest.mark.databases("sqlite")
def test_the_storage_takes_nothing_unless_there_is_one(configure: Any) -> None:
    configure(RESULT_STORAGE_THRESHOLD=0)
    with override_settings(STORAGES={key: value for key, value in settings.STORAGES.items() if key != ALIAS}):
        sent = echo.delay("x")
        Worker().drain()
        assert TaskResult.objects.get(pk=sent.id).result_encoding == ""
        assert sent.get(timeout=5) == "x"


def test_pruning_deletes_values_with_their_lines(configure: Any, backends: dict[str, str]) -> None:
    configure(RESULT_BACKEND=backends["own"], RESULT_STORAGE_THRESHOLD=100)
    sent = [echo.delay("x" * size) for size in (5, 200, 5)]
    Worker().drain()
    assert len(Shelf.kept) == 2
    [reference] = TaskResult.objects.filter(result_encoding="file:").values_list("result", flat=True)
    assert reference is not None
    assert storages[ALIAS].exists(reference)
    TaskResult.objects.filter(pk__in=[one.id for one in sent[1:]]).update(finished_at="2020-01-01T00:00Z")
    assert get_broker().prune({"SUCCESS": timedelta(days=1)}) == 2
    assert len(Shelf.kept) == 1
    assert not storages[ALIAS].exists(reference)
    assert sent[0].get(timeout=5) == "xxxxx"


@pytest.mark.databases("sqlite")
def test_an_atomic_task_keeps_its_value_there_too(configure: Any, backends: dict[str, str]) -> None:
    configure(RESULT_BACKEND=backends["redis"])
    sent = whole.delay()
    Worker().drain()
    assert sent.get(timeout=5) == "whole"
    assert TaskResult.objects.get(pk=sent.id).result_encoding == "store:"


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("why", ["refused", "broken", "lossy"])
def test_a_store_that_fails_costs_no_result(configure: Any, why: str, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be taken there stays in the ledger."""
    wheres = {
        "refused": f"redis://:secret@127.0.0.1:{free_port()}/",
        "broken": f"{__name__}.BrokenShelf",
        "lossy": "cache://default",
    }
    configure(RESULT_BACKEND=wheres[why])
    sent = echo.delay("kept")
    if why == "lossy":  # it says nothing, and has forgotten by the time that somebody asks
        Worker().drain()
        caches["default"].clear()
        with pytest.raises(UnknownResult, match="has not kept its result"):
            sent.get(timeout=5)
        assert sent.state == "SUCCESS"
        return
    Worker().drain()
    assert sent.get(timeout=5) == "kept"
    assert TaskResult.objects.get(pk=sent.id).result_encoding == ""
    assert "stay in the database" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.databases("sqlite")
def test_a_store_that_cannot_be_asked_is_an_operational_error(configure: Any) -> None:
    configure(RESULT_BACKEND=f"{__name__}.Shelf")
    sent = echo.delay("there")
    Worker().drain()
    configure(RESULT_BACKEND=f"{__name__}.BrokenShelf")
    with pytest.raises(OperationalError, match="the shelf is gone"):
        sent.get(timeout=5)
    configure(RESULT_BACKEND="database")
    with pytest.raises(UnknownResult, match="RESULT_BACKEND is 'database'"):
        AsyncResult[Any](sent.id).get(timeout=5)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("cache://nowhere", "CACHES has default, none"),
        ("rpc://", "rpc:// is not available"),
        ("db+postgresql://:secret@host/0", "is 'db://…'; allowed: 'database', redis://"),
        ("redis://:secret@host/x", "The database must be a number"),
        ("results", "is 'results'; allowed: 'database', redis://"),
        (5, "is 5; allowed"),
    ],
)
def test_a_wrong_store_is_told_at_once(sites: None, value: Any, said: str) -> None:
    with override_settings(DJANGO_TASKS={"RESULT_BACKEND": value}):
        [found] = check_settings()
    assert said in found
    assert "secret" not in found


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nowhere.Store", "No module named 'nowhere'"),
        (f"{__name__}.NoStore", "allowed: a subclass of"),
        ("django_tasks.backends.stores.ResultStore", "abstract"),
        ("cache://none", "keeps nothing"),
        ("cache://default", "of each process's own"),
    ],
)
def test_a_store_that_cannot_be_used_is_found_by_a_check(sites: None, value: str, said: str) -> None:
    close_all()
    with override_settings(DJANGO_TASKS={"RESULT_BACKEND": value}):
        [found] = check_results(None)
    assert said in str(found.msg)
    assert found.id in ("django_tasks.E005", "django_tasks.W006")
    stores.close_all()


@pytest.mark.parametrize(("given", "means"), [("django-db", "database"), ("django-cache", "cache://default")])
def test_names_that_others_use_are_understood(sites: None, given: str, means: str) -> None:
    with override_settings(DJANGO_TASKS={"RESULT_BACKEND": given}):
        found = tasks_settings.RESULT_BACKEND
        assert found == means
