"""The smallest Django project that runs django-workbeat: what our own side of the benchmarks uses."""
