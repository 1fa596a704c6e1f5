"""A small app whose tasks the tests send and run."""
