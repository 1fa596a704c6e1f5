import csv
from decimal import Decimal

SUPPLIERS = ["north", "south", "west"]
PART = 25  # lines


def write_lists(directory, lines=1000):
    """Invent three price lists with so many lines in all."""
    for number, supplier in enumerate(SUPPLIERS):
        articles = range(number, lines, len(SUPPLIERS))
        with (directory / f"{supplier}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([f"article {one}", f"{one % 97 + 1}.50", "USD"] for one in articles)


def read_list(path):
    """Return the lines of a price list: article, price, currency."""
    with open(path, newline="") as file:
        return list(csv.reader(file))


def cut(lines, size=PART):
    """Cut lines into parts of this size."""
    return [lines[start : start + size] for start in range(0, len(lines), size)]


def in_euros(price, rate):
    """Return a price of a list in euros, as text."""
    return str((Decimal(price) * Decimal(rate)).quantize(Decimal("0.01")))
