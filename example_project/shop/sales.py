"""The shop's sales, for reports. Invented, and the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from random import Random
from typing import NamedTuple

#: The share of the gross price that goes to the state: 7 of 107.
VAT = Decimal(7) / Decimal(107)
CENT = Decimal("0.01")


class Sale(NamedTuple):
    number: int
    sold_at: datetime
    product: str
    quantity: int
    price: Decimal
    gross: Decimal
    vat: Decimal
    #: Of all sales so far, this one included.
    turnover: Decimal


def invent(count: int, *, prices: Sequence[tuple[str, Decimal]], start: datetime, seed: int) -> Iterator[Sale]:
    """Yield ``count`` sales in the order of time, of the named products at their prices, from ``start`` on."""
    chance = Random(seed)
    sold_at, turnover = start, Decimal(0)
    for number in range(1, count + 1):
        product, price = chance.choice(prices)
        quantity = chance.randint(1, 5)
        gross = price * quantity
        turnover += gross
        sold_at += timedelta(seconds=chance.randint(5, 150))
        yield Sale(number, sold_at, product, quantity, price, gross, _cents(gross * VAT), turnover)


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(CENT, ROUND_HALF_UP)
