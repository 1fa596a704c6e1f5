"""Tasks of the tests of the test kit; a worker in another process imports them, too."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Group
from django.core import mail as django_mail
from django.core.mail import send_mail
from django.db import IntegrityError, transaction
from django.utils import timezone

from django_tasks import Task, current_task, shared_task
from django_tasks.exceptions import Reject

#: What the tasks of this process did.
log: list[Any] = []


class Shortage(Exception):
    """An error of the tests' own."""


@shared_task
def price(amount: Any, each: Any = 1) -> Any:
    return amount * each


@shared_task(ignore_result=True, queue="mail", priority=3)
def mail(to: str) -> None:
    log.append(f"mail to {to}")


@shared_task(bind=True, max_retries=3, default_retry_delay=60)
def order(self: Task[..., Any], article: str, tries: int = 0) -> str:
    log.append((article, self.request.retries))
    if self.request.retries < tries:
        raise self.retry(exc=Shortage(article))
    return f"{article} ordered"


@shared_task
def fail(text: str) -> None:
    raise Shortage(text)


@shared_task
def send_many(names: list[str]) -> None:
    for name in names:
        mail.delay(name)


@shared_task
def send_later(seconds: float) -> None:
    log.append("sent")
    price.apply_async((seconds,), countdown=seconds)


@shared_task
def for_ever() -> None:
    for_ever.delay()


@shared_task(bind=True)
def progress(self: Task[..., Any]) -> Any:
    self.update_state(state="PROGRESS", meta={"done": 1})
    told = self.AsyncResult(str(self.request.id))
    return [told.state, told.info, self.is_revoked()]


@shared_task
def break_transaction(name: str) -> None:
    Group.objects.create(name=name)
    Group.objects.create(name=name)


@shared_task
def survive(name: str) -> int:
    Group.objects.create(name=name)
    try:
        with transaction.atomic():
            Group.objects.create(name=name)
    except IntegrityError:
        log.append("survived")
    return Group.objects.filter(name=name).count()


@shared_task
def on_commit(value: int) -> None:
    with transaction.atomic(durable=True):
        transaction.on_commit(lambda: log.append(("committed", value)))
        transaction.on_commit(lambda: price.delay(value))
        log.append(("before", value))


@shared_task(atomic=True)
def all_or_nothing(name: str, fails: bool) -> None:
    Group.objects.create(name=name)
    mail.delay(name)
    if fails:
        raise Shortage(name)


@shared_task
def stop_the_test(how: str) -> None:
    if how == "fail":
        pytest.fail("the task says so")
    if how == "exit":
        raise SystemExit(3)
    raise KeyboardInterrupt


@shared_task(bind=True)
def requeued(self: Task[..., Any]) -> int:
    if self.request.attempt < 3:
        raise Reject("later", requeue=True)
    return self.request.attempt


@shared_task
def unstorable() -> object:
    return object()


@shared_task
def revoke_itself() -> None:
    current_task.AsyncResult(current_task.request.id).revoke()
    raise current_task.retry(countdown=0)


@shared_task(rate_limit="1/h", concurrency=1)
def limited(number: int) -> int:
    return number


@shared_task(unique=True)
def unique(article: str) -> str:
    return article


@shared_task
async def count_groups() -> int:
    await Group.objects.acreate(name="asynchronous")
    return await Group.objects.acount()


@shared_task
def what_time() -> Any:
    return timezone.now()


@shared_task
def where() -> dict[str, Any]:
    return {"pid": os.getpid(), "zone": settings.TIME_ZONE, "shop": getattr(settings, "SHOP", None)}


@shared_task
def send_email() -> Any:
    send_mail("subject", "body", None, ["ada@example.org"])
    return getattr(django_mail, "outbox", None) is not None


HOUR = timedelta(hours=1)
