"""Speed, cost and memory of django-workbeat, beside those of its peers in the same minute. See ``README.md``."""
