from __future__ import annotations

from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from pytest_django import Settings

from shop.assortment import ARTICLES
from shop.models import Product
from shop.pictures import draw


@pytest.fixture(autouse=True)
def directory(settings: Settings, tmp_path: Path) -> Path:
    """Let the shop write to a directory of the test."""
    settings.DATA_DIR = tmp_path
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.SHOP_MAIL_DIR = tmp_path / "mails"
    return tmp_path


@pytest.fixture
def product(db: None) -> Product:
    """Three apples, with a picture."""
    product = Product(name="Apples", price="2.40", stock=3)
    product.picture.save("apples.jpg", ContentFile(draw(ARTICLES[0])), save=False)
    product.save()
    return product
