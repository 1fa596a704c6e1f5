"""Small things that belong to no other module."""
