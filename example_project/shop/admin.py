from django.contrib import admin

from shop.models import Order, Product, Report


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not subscriptable at run time
    list_display = ("name", "price", "stock", "picture", "thumbnail")
    search_fields = ("name",)
    readonly_fields = ("thumbnail",)


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not subscriptable at run time
    list_display = ("id", "product", "quantity", "email", "placed_at", "confirmed_at")
    list_select_related = ("product",)
    readonly_fields = ("placed_at", "confirmed_at")


@admin.register(Report)
class ReportAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not subscriptable at run time
    list_display = ("id", "rows", "created_at", "finished_at", "file")
    readonly_fields = ("task_id", "file", "created_at", "finished_at")
