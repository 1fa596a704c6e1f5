"""Signals, by Celery's names and arguments, on :class:`django.dispatch.Signal`.

Every receiver takes ``**kwargs``; the sender of a ``task_*`` signal is the :class:`~django_tasks.task.Task`, except for
the ``*_publish`` ones, whose sender is the task's name
(https://docs.celeryq.dev/en/stable/userguide/signals.html). A receiver that raises is logged and never harms the task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

import django.dispatch

_Receiver = Callable[..., Any]
_R = TypeVar("_R", bound=_Receiver)

#: One object for each name under which a receiver was connected: Django tells senders apart by identity, and two equal
#: strings may be two objects.
_sender_names: dict[str, str] = {}


class Signal(django.dispatch.Signal):
    """Django's signal whose ``connect`` is a decorator, too: ``@task_success.connect`` or ``.connect(sender=task)``.

    ``connect`` returns the receiver, where Django's returns ``None`` (so a decorated function would be lost at once).
    Receivers are held weakly unless ``weak=False``, as in Celery and Django. A sender that is a string is compared by
    value, as in Celery.
    """

    @overload  # type: ignore[override]
    def connect(self, receiver: _R, sender: object = None, weak: bool = True, dispatch_uid: Any = None) -> _R: ...
    @overload
    def connect(
        self, receiver: None = None, sender: object = None, weak: bool = True, dispatch_uid: Any = None
    ) -> Callable[[_R], _R]: ...
    def connect(
        self, receiver: _R | None = None, sender: object = None, weak: bool = True, dispatch_uid: Any = None
    ) -> Any:
        if isinstance(sender, str):
            sender = _sender_names.setdefault(sender, sender)
        if receiver is None:

            def decorate(function: _R) -> _R:
                super(Signal, self).connect(function, sender, weak, dispatch_uid)
                return function

            return decorate
        super().connect(receiver, sender, weak, dispatch_uid)
        return receiver

    def disconnect(self, receiver: _Receiver | None = None, sender: Any = None, dispatch_uid: Any = None) -> bool:
        return super().disconnect(receiver, _known(sender), dispatch_uid)

    def send(self, sender: Any, **named: Any) -> list[tuple[_Receiver, Any]]:
        return super().send(_known(sender), **named)

    def send_robust(self, sender: Any, **named: Any) -> list[tuple[_Receiver, Any]]:
        return super().send_robust(_known(sender), **named)

    def emit(self, sender: Any, **named: Any) -> None:
        """Tell every receiver; Django logs what they raise. Costs one attribute look-up when nobody listens."""
        if self.receivers:
            self.send_robust(sender, **named)


def _known(sender: Any) -> Any:
    return _sender_names.get(sender, sender) if isinstance(sender, str) else sender


#: Before a call is stored. ``sender`` is the task's name; ``body`` is ``(args, kwargs, {})``; ``headers`` may be
#: changed.
before_task_publish = Signal()
#: After a call was stored (its transaction may still be open).
after_task_publish = Signal()
#: A worker has claimed the task: ``request``.
task_received = Signal()
#: Just before the body runs: ``task_id, task, args, kwargs``.
task_prerun = Signal()
#: After the body ran and its outcome was decided: ``task_id, task, args, kwargs, retval, state``.
task_postrun = Signal()
#: A success is stored: ``result, runtime`` (seconds).
task_success = Signal()
#: A retry is stored: ``request, reason, einfo``.
task_retry = Signal()
#: A final failure is stored: ``task_id, exception, args, kwargs, traceback, einfo``.
task_failure = Signal()
#: An error of ours, not of the task: ``task_id, args, kwargs, request, exception, traceback, einfo``.
task_internal_error = Signal()
#: A task ended as REVOKED, because it was cancelled or has expired: ``request, terminated, signum, expired``.
task_revoked = Signal()
#: A worker met a task whose name it does not know: ``name, id, message, exc``.
task_unknown = Signal()
#: The task raised ``Reject``: ``message, exc``.
task_rejected = Signal()
#: Before the modules with tasks are imported.
import_modules = Signal()
#: A worker starts: ``instance, options``.
worker_init = Signal()
#: In the supervisor, before a child is made.
worker_before_create_process = Signal()
#: In a fresh child, before its first task.
worker_process_init = Signal()
#: In a child, before it ends: ``pid, exitcode``.
worker_process_shutdown = Signal()
#: The worker takes tasks now: ``instance``.
worker_ready = Signal()
#: The worker was told to stop: ``sig, how, exitcode``; ``how`` is ``"Warm"`` or ``"Cold"``.
worker_shutting_down = Signal()
#: The worker is about to exit: ``instance``.
worker_shutdown = Signal()
#: The worker's lease was renewed.
heartbeat_sent = Signal()
#: A beat starts; the sender is its :class:`~django_tasks.beat.Service`.
beat_init = Signal()
#: The beat of a ``runworker --beat`` starts, after ``beat_init``; the sender is the same.
beat_embedded_init = Signal()
#: The worker sets logging up: ``loglevel, logfile, format, colorize``; a receiver takes over completely.
setup_logging = Signal()
#: The logger ``django_tasks`` is set up: ``logger, loglevel, logfile, format, colorize``.
after_setup_logger = Signal()
#: The logger of tasks is set up: ``logger, loglevel, logfile, format, colorize``.
after_setup_task_logger = Signal()
