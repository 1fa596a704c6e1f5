"""Draws the pictures of the products, and makes them small. Knows Pillow, and nothing of Django."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageFont, ImageOps

from shop.assortment import Article, Shape

#: Pixels, width and height.
PICTURE_SIZE = (1200, 900)
#: Pixels that a thumbnail fits into, width and height.
THUMBNAIL_SIZE = (240, 180)

#: Left, top, right and bottom of the thing in the picture, in pixels, and how round its corners are.
OUTLINES: dict[Shape, tuple[tuple[int, int, int, int], int]] = {
    "round": ((400, 180, 800, 580), 200),
    "loaf": ((290, 300, 910, 580), 140),
    "jar": ((440, 240, 760, 580), 50),
    "bottle": ((510, 250, 690, 640), 40),
    "box": ((420, 180, 780, 600), 12),
}


def draw(article: Article) -> bytes:
    """Draw an article on a table in front of a lit wall. Returns a JPEG of 1200 by 900 pixels."""
    light = Image.radial_gradient("L").resize(PICTURE_SIZE)
    picture = ImageOps.colorize(light, black="#fff8ea", white="#93a4ad")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 560, *PICTURE_SIZE), fill="#7a5c43")
    left, _top, right, bottom = OUTLINES[article.shape][0]
    pen.ellipse((left - 40, bottom - 30, right + 40, bottom + 40), fill="#5d4532")
    _draw_thing(pen, article)
    _draw_price_tag(pen, article)
    return _as_jpeg(picture)


def make_small(picture: bytes) -> bytes:
    """Scale a picture to fit into 240 by 180 pixels. Returns a JPEG.

    Raises ``PIL.UnidentifiedImageError`` when ``picture`` is none.
    """
    with Image.open(io.BytesIO(picture)) as opened:
        small = ImageOps.exif_transpose(opened).convert("RGB")
        small.thumbnail(THUMBNAIL_SIZE, Image.Resampling.LANCZOS)
        return _as_jpeg(small)


def _draw_thing(pen: ImageDraw.ImageDraw, article: Article) -> None:
    (left, top, right, bottom), radius = OUTLINES[article.shape]
    middle = (left + right) // 2
    if article.shape == "bottle":
        pen.rectangle((middle - 30, top - 110, middle + 30, top + 40), fill=article.colour)
        pen.rectangle((middle - 36, top - 140, middle + 36, top - 100), fill="#33302c")
    if article.shape == "jar":
        pen.rectangle((left + 20, top - 50, right - 20, top + 10), fill="#77797c")
    if article.shape == "round":
        pen.line((middle, top + 10, middle + 30, top - 60), fill="#4e3620", width=16)
    pen.rounded_rectangle((left, top, right, bottom), radius, fill=article.colour)
    if article.shape == "loaf":
        for cut in range(left + 130, right - 100, 120):
            pen.line((cut, top + 50, cut + 60, bottom - 110), fill="#f3dfb8", width=14)
    else:
        pen.ellipse((left + 40, top + 40, left + 90, top + 110), fill="#ffffff")  # where the window mirrors


def _draw_price_tag(pen: ImageDraw.ImageDraw, article: Article) -> None:
    pen.rounded_rectangle((60, 730, 1140, 860), 18, fill="#fffdf6", outline="#33302c", width=4)
    pen.text((100, 795), article.name, font=ImageFont.load_default(64), fill="#33302c", anchor="lm")
    pen.text((1100, 795), str(article.price), font=ImageFont.load_default(64), fill="#33302c", anchor="rm")


def _as_jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=75, optimize=True)
    return buffer.getvalue()
