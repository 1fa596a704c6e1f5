"""A mail transport as bad as the real ones, so that retries have something to do.

It hangs up on a share of the deliveries, as a tired SMTP server does, and writes the others to files. Whether it hangs
up depends on the mail and on how often that mail was tried, on nothing else: two runs fail at the same places, in
whichever process the mail is sent. A mail is known by its ``Message-ID``, so a mail that is sent twice arrives once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from smtplib import SMTPServerDisconnected

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.text import get_valid_filename


class FlakyFileBackend(BaseEmailBackend):
    """Write mails to ``SHOP_MAIL_DIR``, except for the share ``SHOP_MAIL_FAILURE_RATE`` of all deliveries."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Deliver the mails in their order. Returns how many there were.

        Raises ``SMTPServerDisconnected`` at the first that fails; those after it are not tried. Raises
        ``ImproperlyConfigured`` when the rate is not a number from 0 to 1.
        """
        rate = _failure_rate()
        for email in email_messages:
            message = email.message()
            message_id = str(message["Message-ID"])
            attempt = _count_attempt(message_id)
            if _chance(message_id, attempt) < rate:
                raise SMTPServerDisconnected(f"The server hung up on {message_id}, attempt {attempt}.")
            mail_file(message_id).write_bytes(message.as_bytes())
        return len(email_messages)


def mail_file(message_id: str) -> Path:
    """Return the file of an accepted mail; it exists once the mail was accepted."""
    name = get_valid_filename(message_id.strip("<>").replace("@", "_"))
    return Path(settings.SHOP_MAIL_DIR) / f"{name}.eml"


def attempts(message_id: str) -> int:
    """Return how often the transport was handed this mail."""
    counter = _counter_file(message_id)
    return counter.stat().st_size if counter.exists() else 0


def _count_attempt(message_id: str) -> int:
    counter = _counter_file(message_id)
    counter.parent.mkdir(parents=True, exist_ok=True)
    # The size is the count. Appending one unbuffered byte is atomic, so two processes count to two.
    with counter.open("ab", buffering=0) as file:
        file.write(b".")
        return file.tell()


def _counter_file(message_id: str) -> Path:
    return mail_file(message_id).with_suffix(".attempts")


def _chance(message_id: str, attempt: int) -> float:
    """Return a number from 0 to 1 that looks random and is always the same for this attempt at this mail."""
    digest = hashlib.sha256(f"{message_id} {attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def _failure_rate() -> float:
    rate = settings.SHOP_MAIL_FAILURE_RATE
    if not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise ImproperlyConfigured(f"SHOP_MAIL_FAILURE_RATE is {rate!r}; a number from 0 to 1 is needed.")
    return float(rate)
