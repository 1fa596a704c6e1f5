"""The promises of a broker by subject; :mod:`tests.backends.contract` joins them."""
