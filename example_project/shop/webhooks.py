"""Tells a partner what happened in the shop, by signed POST requests. ``views.partner`` stands in for the partner."""

from __future__ import annotations

import json
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.urls import reverse
from django.utils.crypto import constant_time_compare, salted_hmac

#: The header that proves who sends.
SIGNATURE = "X-Shop-Signature"
#: Seconds that the partner may take to answer.
TIMEOUT = 5


class NotTaken(Exception):
    """The partner answers that something is wrong on that side; later may be better."""


class TooMany(NotTaken):
    """The partner asks for a pause."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"The partner asks for a pause of {self.seconds} s."


def post(event: dict[str, Any]) -> int:
    """Tell the partner of an event. Returns the status of the answer.

    Raises ``TooMany`` for 429, ``NotTaken`` for any other error, ``OSError`` when there is no answer.
    """
    body = json.dumps(event).encode()
    connection = HTTPConnection(urlsplit(settings.SHOP_URL).netloc, timeout=TIMEOUT)
    try:
        connection.request("POST", reverse("partner"), body, {SIGNATURE: sign(body)})
        answer = connection.getresponse()
    finally:
        connection.close()
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        raise TooMany(int(answer.headers["Retry-After"]))
    if answer.status >= HTTPStatus.BAD_REQUEST:
        raise NotTaken(f"The partner answers {answer.status}.")
    return answer.status


def sign(body: bytes) -> str:
    return salted_hmac("shop.webhooks", body, algorithm="sha256").hexdigest()


def is_signed(body: bytes, signature: str) -> bool:
    return constant_time_compare(sign(body), signature)
