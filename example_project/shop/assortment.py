"""What the shop sells. Invented, and the same at every start."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, NamedTuple

Shape = Literal["round", "loaf", "jar", "bottle", "box"]


class Article(NamedTuple):
    name: str
    price: Decimal
    shape: Shape
    #: Of the thing itself, as Pillow reads it.
    colour: str


ARTICLES = (
    Article("Apples", Decimal("2.40"), "round", "#b3261e"),
    Article("Oranges", Decimal("2.90"), "round", "#ee8100"),
    Article("Lemons", Decimal("1.80"), "round", "#f0c808"),
    Article("Limes", Decimal("1.95"), "round", "#6aa84f"),
    Article("Plums", Decimal("3.10"), "round", "#5b2a86"),
    Article("Tomatoes", Decimal("3.40"), "round", "#d62828"),
    Article("Farmhouse bread", Decimal("4.20"), "loaf", "#8a5a2b"),
    Article("Rye bread", Decimal("3.90"), "loaf", "#5c3d1e"),
    Article("Brioche", Decimal("5.50"), "loaf", "#d9983a"),
    Article("Corn bread", Decimal("3.60"), "loaf", "#e3b23c"),
    Article("Honey", Decimal("6.80"), "jar", "#d98e04"),
    Article("Strawberry jam", Decimal("4.10"), "jar", "#c1121f"),
    Article("Blackberry jam", Decimal("4.30"), "jar", "#3c1642"),
    Article("Pickled gherkins", Decimal("2.70"), "jar", "#4f772d"),
    Article("Mustard", Decimal("1.90"), "jar", "#c9a227"),
    Article("Olive oil", Decimal("9.50"), "bottle", "#7f8f2a"),
    Article("Elderflower cordial", Decimal("5.20"), "bottle", "#b7c68b"),
    Article("Apple juice", Decimal("3.30"), "bottle", "#c8963e"),
    Article("Beetroot juice", Decimal("3.70"), "bottle", "#7b1e3b"),
    Article("Spring water", Decimal("0.90"), "bottle", "#4a90c2"),
    Article("Green tea", Decimal("4.60"), "box", "#3f7d58"),
    Article("Breakfast tea", Decimal("4.40"), "box", "#8c4a2f"),
    Article("Oat flakes", Decimal("2.20"), "box", "#c2a878"),
    Article("Sea salt", Decimal("1.50"), "box", "#5f7d95"),
)
