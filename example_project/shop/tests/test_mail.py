from __future__ import annotations

from smtplib import SMTPServerDisconnected

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from pytest_django import Settings

from shop import mail


def deliver(message_id: str) -> bool:
    """Hand a mail to the transport itself: a test's ``send()`` would go to Django's outbox. False when it hung up."""
    email = EmailMessage("Hello", "World", to=["someone@example.com"], headers={"Message-ID": message_id})
    try:
        return mail.FlakyFileBackend().send_messages([email]) == 1
    except SMTPServerDisconnected:
        return False


def test_an_accepted_mail_is_a_file() -> None:
    while not deliver("<hello@example.com>"):
        assert not mail.mail_file("<hello@example.com>").exists()
    assert b"\nSubject: Hello\n" in b"\n" + mail.mail_file("<hello@example.com>").read_bytes()


def test_every_delivery_is_counted() -> None:
    assert mail.attempts("<hello@example.com>") == 0
    for _ in range(3):
        deliver("<hello@example.com>")
    assert mail.attempts("<hello@example.com>") == 3


def test_two_runs_fail_at_the_same_places(settings: Settings) -> None:
    ids = [f"<{number}@example.com>" for number in range(50)]
    first = [deliver(message_id) for message_id in ids]
    settings.SHOP_MAIL_DIR = settings.SHOP_MAIL_DIR / "second"
    assert [deliver(message_id) for message_id in ids] == first


def test_half_of_all_deliveries_fail() -> None:
    delivered = [deliver(f"<{number}@example.com>") for number in range(400)]
    assert 160 < sum(delivered) < 240


@pytest.mark.parametrize(("rate", "delivered"), [(0, 20), (1, 0)])
def test_the_rate_is_a_setting(settings: Settings, rate: float, delivered: int) -> None:
    settings.SHOP_MAIL_FAILURE_RATE = rate
    assert sum(deliver(f"<{number}@example.com>") for number in range(20)) == delivered


@pytest.mark.parametrize("rate", ["often", 1.5, -1, None])
def test_a_rate_that_is_none_is_refused(settings: Settings, rate: object) -> None:
    settings.SHOP_MAIL_FAILURE_RATE = rate
    with pytest.raises(ImproperlyConfigured, match="a number from 0 to 1"):
        deliver("<hello@example.com>")
