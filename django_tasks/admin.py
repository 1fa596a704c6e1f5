"""The admin of the to-do list, the ledger, the workers and all the rest: which page stands for which model.

Rows are the engine's: nothing here adds or changes one, but for limits and periodic tasks, which are people's. Each
action is defined once and appears in the list and on the page of a row; both post to the list, where the permission is
checked.
"""

from __future__ import annotations

from django.contrib import admin

from .cockpit import site as cockpit
from .cockpit.limits import LimitAdmin
from .models import BulkOperation, Limit, PeriodicTask, Task, TaskResult, Worker
from .periodic_admin import PeriodicTaskAdmin
from .task_admin.bulk import BulkOperationAdmin
from .task_admin.ledger import TaskResultAdmin
from .task_admin.todo import TaskAdmin
from .task_admin.workers import WorkerAdmin


def register_all(site: admin.AdminSite) -> None:
    """Register the models on ``site``; on the default site that is done already."""
    site.register(Task, TaskAdmin)
    site.register(TaskResult, TaskResultAdmin)
    site.register(Worker, WorkerAdmin)
    site.register(PeriodicTask, PeriodicTaskAdmin)
    site.register(Limit, LimitAdmin)
    site.register(BulkOperation, BulkOperationAdmin)
    cockpit.register(site)


register_all(admin.site)
