from __future__ import annotations

import io

import pytest
from PIL import Image, UnidentifiedImageError

from shop.assortment import ARTICLES, Article
from shop.pictures import PICTURE_SIZE, draw, make_small


@pytest.mark.parametrize("article", ARTICLES[::6], ids=lambda article: article.name)
def test_a_thumbnail_is_small_and_not_distorted(article: Article) -> None:
    drawn = draw(article)
    small = make_small(drawn)
    assert Image.open(io.BytesIO(drawn)).size == PICTURE_SIZE
    assert Image.open(io.BytesIO(small)).size == (240, 180)
    assert len(small) < len(drawn)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(UnidentifiedImageError):
        make_small(b"no picture")
