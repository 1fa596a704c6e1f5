"""The tests of django-workbeat: real databases, real processes."""
