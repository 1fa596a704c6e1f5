"""``manage.py stock_shelves``"""

from django.core.management.base import BaseCommand

from shop.models import Product


class Command(BaseCommand):
    help = "Fill the shelves with the assortment and draw its pictures; products that exist stay as they are."

    def handle(self, **options: object) -> None:
        added = Product.objects.stock_shelves()
        self.stdout.write(f"{len(added)} products added, {Product.objects.count()} on the shelves.")
