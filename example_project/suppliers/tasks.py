from pathlib import Path

from django_tasks import chain, chord, group, shared_task
from django_tasks.utils.log import get_task_logger

from . import lists, rates
from .models import Offer

logger = get_task_logger(__name__)


@shared_task
def extract(path):
    """Read one supplier's list."""
    return [[Path(path).stem, *line] for line in lists.read_list(path)]


@shared_task(bind=True)
def transform_all(self, extracted):
    """Take the lists of all suppliers, and let one task transform each part of them."""
    lines = [line for one in extracted for line in one]
    parts = [transform.s(number, part) for number, part in enumerate(lists.cut(lines), start=1)]
    raise self.replace(chord(parts, load.s()))


@shared_task(bind=True, autoretry_for=(rates.RateServiceDown,), retry_backoff=True)
def transform(self, number, lines):
    """Turn the prices of one part into euros."""
    rate = rates.rate_of("USD", number, attempt=self.request.retries + 1)
    return [[supplier, article, lists.in_euros(price, rate)] for supplier, article, price, _ in lines]


@shared_task(atomic=True)
def load(parts):
    """Store all offers, or none."""
    offers = [Offer(supplier=one[0], article=one[1], price=one[2]) for part in parts for one in part]
    unique = {"unique_fields": ["supplier", "article"], "update_fields": ["price"]}
    Offer.objects.bulk_create(offers, update_conflicts=True, batch_size=500, **unique)
    return len(offers)


@shared_task
def notify(count):
    """Tell the buyer that it is done."""
    logger.info("Dear buyer: %s offers are up to date.", count)
    return f"told of {count} offers"


@shared_task
def complain(request, exc, traceback):
    """Tell the buyer that it went wrong."""
    logger.error("Dear buyer: %s failed: %s", request.task, exc)
    return request.task


def import_price_lists(paths):
    """Send the whole pipeline; return the handle of its last task."""
    extracting = group(extract.s(str(path)) for path in paths)
    return chain(extracting, transform_all.s(), notify.s()).on_error(complain.s()).apply_async()
