"""Tasks that say something to the log. Workers load this module by ``IMPORTS``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django_tasks import Task, shared_task
from django_tasks.utils.log import get_task_logger
from tests.integration.jobs import wait_for

logger = get_task_logger(__name__)


@shared_task(bind=True, max_retries=1, default_retry_delay=0)
def talk(self: Task[..., Any], gate: str = "") -> None:
    logger.debug("not asked for")
    logger.info("attempt %d", self.request.retries + 1)
    if gate:
        wait_for(Path(gate))
        logger.warning("gone on")
    if self.request.retries == 0:
        raise self.retry(exc=ValueError("once more"))


@shared_task
async def talk_aside() -> None:
    logger.info("from a coroutine")


@shared_task(ignore_result=True)
def talk_in_vain() -> None:
    logger.info("nobody will read this")


@shared_task(log_level=False)
def be_discreet() -> None:
    logger.critical("nobody is to read this")
