"""Periodic tasks as rows: what runs when, what the code declares of it, and when a row runs next. No process.

The models are :mod:`django_tasks.models`'s, under django-celery-beat's names; :mod:`django_tasks.beat` sends what is
due.
"""
