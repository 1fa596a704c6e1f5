from django.db import models


class Offer(models.Model):
    supplier = models.CharField(max_length=40)
    article = models.CharField(max_length=40)
    price = models.DecimalField(max_digits=8, decimal_places=2)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["supplier", "article"], name="one_offer_per_article")]

    def __str__(self):
        return f"{self.article} from {self.supplier}: {self.price}"
