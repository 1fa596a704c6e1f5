"""The fixtures of the API's tests, for what Celery's users write."""

from __future__ import annotations

from tests.api.conftest import configure, pytest_generate_tests, run, worker

__all__ = ["configure", "pytest_generate_tests", "run", "worker"]
