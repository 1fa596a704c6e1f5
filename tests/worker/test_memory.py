"""How much memory a process holds."""

from __future__ import annotations

import mmap

import psutil

from django_tasks.worker.memory import resident_kib


def test_it_is_what_the_system_says() -> None:
    here = psutil.Process().memory_info().rss / 1024
    assert 0.5 * here < resident_kib() < 2 * here


def test_it_grows_with_what_is_held() -> None:
    before = resident_kib()
    held = mmap.mmap(-1, 32 * 1024 * 1024)  # from the system: the interpreter may have room of its own left
    for page in range(0, len(held), mmap.PAGESIZE):
        held[page] = 1
    assert resident_kib() - before > 24 * 1024
    held.close()
