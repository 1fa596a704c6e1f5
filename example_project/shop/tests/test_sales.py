from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from shop.sales import Sale, invent


def sales(seed: int) -> list[Sale]:
    prices = [("Apples", Decimal("2.40")), ("Honey", Decimal("6.80"))]
    return list(invent(100, prices=prices, start=datetime(2026, 1, 1, tzinfo=UTC), seed=seed))


def test_the_turnover_is_the_sum_of_all_sales() -> None:
    assert sales(1)[-1].turnover == sum(sale.gross for sale in sales(1))


def test_sales_are_in_the_order_of_time() -> None:
    moments = [sale.sold_at for sale in sales(1)]
    assert moments == sorted(moments)


def test_the_seed_decides() -> None:
    assert sales(1) == sales(1) != sales(2)
