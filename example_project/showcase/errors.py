"""Why a showcase ends early."""


class ShowcaseError(Exception):
    """Something did not go as the showcase promises; the message says what."""
