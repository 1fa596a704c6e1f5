"""The shop's tables: what it sells, what was ordered, what was reported."""

from __future__ import annotations

from typing import Any

from django.core.files.base import ContentFile, File
from django.core.validators import MinValueValidator
from django.db import models, transaction
from django.db.models import F
from django.utils import timezone

from shop import pictures
from shop.assortment import ARTICLES


class OutOfStock(Exception):
    """More was ordered than lies on the shelf."""

    def __init__(self, product: Product, quantity: int) -> None:
        super().__init__(f"{product.name}: {quantity} ordered, {product.stock} in stock; order fewer.")


class ProductManager(models.Manager["Product"]):
    @transaction.atomic
    def stock_shelves(self) -> list[Product]:
        """Fill the shelves with the assortment, each product with a freshly drawn picture; what is there stays.

        Returns the products that were added.
        """
        known = set(self.values_list("name", flat=True))
        added = [Product(name=article.name, price=article.price) for article in ARTICLES if article.name not in known]
        drawings = {article.name: article for article in ARTICLES}
        for number, product in enumerate(added, start=len(known) + 1):
            picture = ContentFile(pictures.draw(drawings[product.name]))
            product.picture.save(f"product-{number:02}.jpg", picture, save=False)
            product.save()
        return added


class Product(models.Model):
    """A thing on the shelf."""

    name = models.CharField(max_length=80, unique=True)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    stock = models.PositiveIntegerField(default=1_000, help_text="Pieces left.")
    picture = models.ImageField(upload_to="products")
    thumbnail = models.ImageField(upload_to="thumbnails", blank=True, editable=False)

    objects = ProductManager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def take(self, quantity: int) -> None:
        """Take pieces off the shelf. Raises ``OutOfStock`` when there are not enough."""
        # One guarded UPDATE: two customers cannot both get the last piece.
        if not Product.objects.filter(pk=self.pk, stock__gte=quantity).update(stock=F("stock") - quantity):
            raise OutOfStock(self, quantity)

    def keep_thumbnail(self, jpeg: bytes) -> None:
        """Store the small picture in place of the old one, and touch no other column."""
        if self.thumbnail:
            self.thumbnail.delete(save=False)
        self.thumbnail.save(f"product-{self.pk}.jpg", ContentFile(jpeg), save=False)
        self.save(update_fields=["thumbnail"])


class Order(models.Model):
    """A customer's order. It is confirmed when the e-mail has left the house."""

    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="orders")
    quantity = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    email = models.EmailField()
    placed_at = models.DateTimeField(auto_now_add=True)
    confirmed_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return f"Order {self.pk}"

    def confirm(self) -> None:
        """Note that the customer was told."""
        self.confirmed_at = timezone.now()
        self.save(update_fields=["confirmed_at"])


class Report(models.Model):
    """A sales report: asked for now, written by a task."""

    rows = models.PositiveIntegerField(default=200_000, help_text="Lines of the report, without the heading.")
    task_id = models.CharField(max_length=255, blank=True, editable=False)
    file = models.FileField(upload_to="reports", blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return f"Report {self.pk}"

    def finish(self, content: File[Any]) -> None:
        """Store the written file."""
        self.file.save(f"sales-{self.pk}.csv", content, save=False)
        self.finished_at = timezone.now()
        self.save(update_fields=["file", "finished_at"])
