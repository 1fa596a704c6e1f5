"""Visit pages in a process with other settings: addresses are read as JSON, statuses and pages are written."""

from __future__ import annotations

import json
import sys

import django


def main() -> None:
    django.setup()
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client(raise_request_exception=False)
    client.force_login(User.objects.get(username="root"))
    pages = json.load(sys.stdin)
    answers = {name: client.get(f"/admin/django_tasks/{path}") for name, path in pages.items()}
    json.dump({name: [answer.status_code, answer.content.decode()] for name, answer in answers.items()}, sys.stdout)


if __name__ == "__main__":
    main()
