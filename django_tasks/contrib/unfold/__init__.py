"""The admin's pages in the frame of django-unfold: put ``"django_tasks.contrib.unfold"`` into ``INSTALLED_APPS``."""
