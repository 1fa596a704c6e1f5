class RateServiceDown(Exception):
    """The service of exchange rates did not answer."""


def rate_of(currency, part, attempt):
    """Ask for an exchange rate. It is invented, and so is that the service hangs up on part 17 at first."""
    if part == 17 and attempt == 1:
        raise RateServiceDown(f"no answer for part {part}")
    return "0.92"
