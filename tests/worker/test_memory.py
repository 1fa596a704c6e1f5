"""How much memory a process holds."""

from __future__ import annotations

import psutil

from django_tasks.worker.memory import resident_kib


def test_it_is_what_the_system_says() -> None:
    here = psutil.Process().memory_info().rss / 1024
    assert 0.5 * here < resident_kib() < 2 * here


def test_it_grows_with_what_is_held() -> None:
    before = resident_kib()
    held = bytearray(b"x") * (32 * 1024 * 1024)
    assert resident_kib() - before > 24 * 1024
    assert len(held) == 32 * 1024 * 1024
