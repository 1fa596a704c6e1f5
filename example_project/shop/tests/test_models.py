from __future__ import annotations

import pytest

from shop.models import OutOfStock, Product

pytestmark = pytest.mark.django_db


def test_the_shelves_are_stocked_once() -> None:
    assert len(Product.objects.stock_shelves()) == 24
    assert Product.objects.stock_shelves() == []
    assert sum(product.picture.size for product in Product.objects.all()) < 1_000_000


def test_what_is_there_stays(product: Product) -> None:
    Product.objects.stock_shelves()
    assert Product.objects.count() == 24
    assert Product.objects.get(name="Apples").stock == 3


def test_the_last_piece_is_sold_once(product: Product) -> None:
    product.take(3)
    with pytest.raises(OutOfStock, match="Apples: 1 ordered"):
        product.take(1)
    product.refresh_from_db()
    assert product.stock == 0


def test_a_new_thumbnail_takes_the_place_of_the_old_one(product: Product) -> None:
    product.keep_thumbnail(b"old")
    name = product.thumbnail.name
    product.keep_thumbnail(b"new")
    product.refresh_from_db()
    assert product.thumbnail.name == name
    with product.thumbnail.open() as file:
        assert file.read() == b"new"


def test_a_thumbnail_does_not_undo_a_sale(product: Product) -> None:
    stale = Product.objects.get(pk=product.pk)
    product.take(2)
    stale.keep_thumbnail(b"new")
    product.refresh_from_db()
    assert product.stock == 1
