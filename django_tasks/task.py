"""``Task``: what a declared function is, calling it, and what it can do while it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import (
    Any,
    ClassVar,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    cast,
)

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from . import client, exceptions, ids, registry, routing, states
from .arguments import Arguments, Models
from .backends import get_broker
from .backends.message import Message
from .canvas.maps import chunks, xmap, xstarmap
from .canvas.sending import linked, replacement, send
from .canvas.signatures import Signature
from .canvas.taking_over import stamps_of, taking_over
from .conf import settings
from .context import current_request
from .eager import run_eagerly
from .moments import due_of
from .options import (
    LINKING,
    RETRY_OPTIONS,
    as_arguments,
    as_call,
    check_attributes,
    check_call,
    flow_of,
    is_name,
)
from .place import Replaced
from .redaction import hidden_call
from .request import Context, request_of
from .result import AsyncResult, EagerResult
from .retry import validate_max_retries
from .serialization import dumps, exception_to_data

__all__ = ["Task", "current_task", "send_task"]

P = ParamSpec("P")
R = TypeVar("R")


class Task(Generic[P, R]):
    """A declared function: its name, its options, and how to call it.

    One instance lives in each process, so what a task keeps on ``self`` is shared by its runs there. Names and
    meanings are Celery's (https://docs.celeryq.dev/en/stable/userguide/tasks.html); subclass it and give ``base=`` to
    change how tasks run.
    """

    #: The registered name: ``module.function`` unless given.
    name: str = ""
    #: Drop the return value; ``None`` follows ``TASK_IGNORE_RESULT``.
    ignore_result: bool | None = None
    #: Retries after the first attempt; ``None`` is for ever.
    max_retries: int | None = 3
    #: Seconds before a retry for which nothing says otherwise.
    default_retry_delay: float = 180
    #: ``None`` follows ``TASK_SERIALIZER``.
    serializer: str | None = None
    #: ``None`` follows ``TASK_COMPRESSION``.
    compression: str | None = None
    #: −100 to 100, higher first; ``None`` follows ``TASK_DEFAULT_PRIORITY``.
    priority: int | None = None
    #: ``None`` follows ``TASK_DEFAULT_QUEUE``.
    queue: str | None = None
    #: True: a task whose worker dies runs again. False: at most once, it ends as FAILURE. ``None`` follows
    #: ``TASK_ACKS_LATE``.
    acks_late: bool | None = None
    #: False: a task whose worker dies ends as FAILURE, as with ``acks_late=False``.
    reject_on_worker_lost: bool | None = None
    #: Exceptions after which the task is retried by itself.
    autoretry_for: tuple[type[BaseException], ...] = ()
    #: Those among them after which it is not.
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    #: Arguments of that retry.
    retry_kwargs: Mapping[str, Any] = {}
    #: True for delays of 1, 2, 4 … seconds, a number for that many times as long, False for ``default_retry_delay``.
    retry_backoff: bool | float = False
    #: Longest such delay in seconds.
    retry_backoff_max: float = 600
    #: Draw the delay from 0 to the computed one.
    retry_jitter: bool = True
    #: Exceptions that are expected: FAILURE, logged without traceback as INFO.
    throws: tuple[type[BaseException], ...] = ()
    #: Check arguments against the signature when called.
    typing: bool = True
    #: Seconds, ``timedelta`` or ``datetime`` after which a call is not run any more.
    expires: Any = None
    #: Seconds after which a running attempt is ended from outside, as FAILURE; ``None`` follows ``TASK_TIME_LIMIT``.
    time_limit: float | None = None
    #: Seconds after which ``SoftTimeLimitExceeded`` is raised in the task; ``None`` follows ``TASK_SOFT_TIME_LIMIT``.
    soft_time_limit: float | None = None
    #: Most starts in a time, of all workers together: ``"10/s"``, ``"100/m"``, ``"5/h"``, or a number per second.
    rate_limit: str | float | None = None
    #: The rate is that of each worker, which is Celery's meaning.
    per_worker: bool = False
    #: Most that run at the same time, on all workers together.
    concurrency: int | None = None
    #: What limits hold for one by one: the name of an argument, several, or a function of the arguments.
    key: Any = None
    #: Calls of different keys take turns, however many of one wait.
    fair: bool = False
    #: No second one while the first waits or runs: ``True`` for the same arguments, the name of an argument, several
    #: (none, ``()``, for all calls of the task), or a function of the arguments.
    unique: Any = None
    #: ``"end"``: in the way until it is done, which is the default; ``"start"``: until it starts.
    unique_until: str | None = None
    #: In the way for so long after it was sent instead, whatever becomes of it: seconds or ``timedelta``.
    unique_for: Any = None
    #: What becomes of the second one: ``"skip"``, the default, ``"replace"``, ``"raise"`` or ``"again"``.
    on_conflict: str | None = None
    #: Run so long after the last of several calls, with the arguments of that one: seconds or ``timedelta``.
    debounce: Any = None
    #: But no later than so long after the first one.
    debounce_max: Any = None
    #: Words by which its tasks are found.
    tags: Sequence[str] = ()
    #: Run it by a schedule: a schedule of :mod:`django_tasks.schedules`, seconds, a dict as in ``BEAT_SCHEDULE``, or a
    #: list of such.
    periodic: Any = None
    #: From which level on what it logs is kept beside it, as ``"INFO"``; ``False`` keeps nothing, ``None`` follows
    #: ``TASK_LOG_LEVEL``.
    log_level: str | Literal[False] | None = None
    #: Names of arguments that nobody is to read: they are hidden wherever calls are shown, in errors, and in the ledger
    #: once the task has succeeded.
    sensitive: Sequence[str] = ()
    #: Keep a call as a row until it is done, whatever broker carries it; ``None`` follows ``TASK_DURABLE``.
    durable: bool | None = None
    #: Report STARTED at once, however short the task is; ``None`` follows ``TASK_TRACK_STARTED``.
    track_started: bool | None = None
    #: Failures are always kept here; accepted as in Celery.
    store_errors_even_if_ignored: bool | None = None
    #: Keep the result of an eager run, too; ``None`` follows ``TASK_STORE_EAGER_RESULT``.
    store_eager_result: bool | None = None
    #: Ours: the body, what it writes and sends, and its result commit in one transaction.
    atomic: bool = False
    #: Validate arguments by their annotations with pydantic, when sent and when run.
    pydantic: bool = False
    #: Validate strictly when sent: ``"1"`` is no number.
    pydantic_strict: bool = False
    #: pydantic's validation context.
    pydantic_context: Mapping[str, Any] | None = None
    #: Arguments of ``model_dump()`` for a model that the task returns.
    pydantic_dump_kwargs: Mapping[str, Any] | None = None

    MaxRetriesExceededError: ClassVar = exceptions.MaxRetriesExceededError
    OperationalError: ClassVar = exceptions.OperationalError

    #: The declared function; for a class-based task, its own ``run``.
    run: Callable[..., Any]
    is_async: bool = False
    before_start_overridden: bool = False
    handlers_overridden: bool = False
    call_overridden: bool = False
    shadow_overridden: bool = False

    def __init__(self) -> None:
        if not callable(getattr(self, "run", None)):
            raise TypeError(f"{type(self).__name__} needs a method run(): it is the body of the task")
        if not self.name:
            self.name = registry.gen_task_name(type(self))
        bound = bool(getattr(self, "_bound", False))
        function = inspect.unwrap(getattr(type(self).__dict__.get("run"), "__func__", self.run))
        self._arguments = Arguments(getattr(self.run, "__func__", self.run), bound=bound or inspect.ismethod(self.run))
        self._models = (
            Models(function, self._arguments, strict=self.pydantic_strict, context=self.pydantic_context)
            if self.pydantic
            else None
        )
        self.is_async = _is_async(function) or _is_async(self.run)
        if _is_generator(self.run):
            raise TypeError(
                f"Task {self.name} is a generator function: its body would never run; return a list instead"
            )
        own = type(self)
        self.before_start_overridden = own.before_start is not Task.before_start
        self.call_overridden = own.__call__ is not Task.__call__
        self.shadow_overridden = own.shadow_name is not Task.shadow_name
        self.handlers_overridden = any(
            getattr(own, name) is not getattr(Task, name)
            for name in ("on_success", "on_failure", "on_retry", "after_return")
        )
        check_attributes(Task, self)
        self._flow = flow_of(self)

    # Calling

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the body here and now, as a function."""
        request = request_of(self)
        if request is not None and not request._entered and not request.called_directly:
            request._entered = True  # the worker calls, through an overridden __call__
            return cast(R, self.run(*args, **kwargs))
        self.push_request(args=args, kwargs=kwargs, task=self.name, _entered=True)
        try:
            return cast(R, self.run(*args, **kwargs))
        finally:
            self.pop_request()

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task with these arguments: ``apply_async(args, kwargs)``."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Send the task; return its result's handle at once.

        The row joins the caller's transaction: a rollback takes it back. Options, as in Celery: ``countdown``
        (seconds) or ``eta`` (datetime), ``expires`` (seconds, timedelta, datetime), ``queue``, ``priority`` (−100 to
        100, higher first), ``task_id`` (sending one id twice stores it once), ``headers``, ``serializer``,
        ``link`` and ``link_error`` (signatures to send after a success, or a failure), ``compression``,
        ``ignore_result``, ``time_limit`` and ``soft_time_limit`` (seconds), ``retry`` and
        ``retry_policy`` (of the *sending*), ``shadow``, ``argsrepr``, ``kwargsrepr``.

        Raises ``TypeError`` if the arguments do not fit the function, or for a bad option;
        :class:`~django_tasks.exceptions.EncodeError` or :class:`~django_tasks.exceptions.PayloadTooLarge` for
        arguments that cannot be stored; :class:`~django_tasks.exceptions.OperationalError` when the database cannot be
        reached.
        """
        args, kwargs = self._checked(args, kwargs)
        if options:
            check_call(options, self.name)
            if not LINKING.isdisjoint(options):
                return cast("AsyncResult[R]", send(linked(self, args, kwargs, options), (), {}, {}))
        if settings.TASK_ALWAYS_EAGER:
            return self._run_here(args, kwargs, options)
        return _sent(client.deliver(self.name, args, kwargs, options, self), options, self)

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task once the caller's transaction commits: ``apply_async_on_commit(args, kwargs)``."""
        return self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        using: str = DEFAULT_DB_ALIAS,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send the task once the transaction on the database ``using`` commits, at once if there is none.

        Unlike Celery's, it returns the result's handle. On the database that holds the tasks this is what
        :meth:`apply_async` does anyway; on another one the call is sent after the commit, and lost if the process dies
        between the two. In eager mode the task runs after the commit. Raises as :meth:`apply_async` does.
        """
        eager = settings.TASK_ALWAYS_EAGER
        if not connections[using].in_atomic_block or (using == settings.DATABASE and not eager):
            return self.apply_async(args, kwargs, **options)
        args, kwargs = self._checked(args, kwargs)
        check_call(options, self.name)
        options = {**options, "task_id": options.get("task_id") or ids.new_id()}
        if not LINKING.isdisjoint(options):
            later = linked(self, args, kwargs, options)
            transaction.on_commit(lambda: send(later, (), {}, {}) and None, using=using)
            return cast("AsyncResult[R]", later.AsyncResult(options["task_id"]))
        client.build(self.name, args, kwargs, options, self)  # what is wrong with the call is told here, not later
        if not eager:
            transaction.on_commit(lambda: client.send(self.name, args, kwargs, options, self) and None, using=using)
            return _handle(options["task_id"], self.name, options, self)
        result: EagerResult[R] = EagerResult(options["task_id"], None, states.PENDING, name=self.name)
        transaction.on_commit(lambda: result.become(self._run_here(args, kwargs, options)), using=using)
        return result

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task from asynchronous code."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Send the task from asynchronous code, with options."""
        return await sync_to_async(self.apply_async)(args, kwargs, **options)

    def enqueue_many(self, calls: Iterable[Any], **options: Any) -> list[AsyncResult[R]]:
        """Send one task for each of ``calls``, all or none, a thousand rows a statement; return the results in order.

        A call is a tuple or list of positional arguments, a dict of keyword arguments, or a pair of both:
        ``resize.enqueue_many((id,) for id in ids)``. Options as for :meth:`apply_async`, the same for all.
        """
        if options:
            check_call(options, self.name)
        if not LINKING.isdisjoint(options):
            raise TypeError("enqueue_many() links nothing: use group() or chord()")
        if options.get("task_id") is not None:
            raise TypeError("enqueue_many() makes the ids itself: the option 'task_id' names one call")
        if settings.TASK_ALWAYS_EAGER:
            asked = [as_call(call) for call in calls]
            for args, kwargs in asked:  # all or none
                client.build(self.name, *self._checked(args, kwargs), options, self)
            return [self.apply_async(args, kwargs, **options) for args, kwargs in asked]
        checked = (self._checked(*as_call(call)) for call in calls)
        sent = client.send_many(self.name, checked, options, self)
        return [_sent(one, options, self) for one in sent]

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        throw: bool | None = None,
        retries: int = 0,
        **options: Any,
    ) -> EagerResult[R]:
        """Run the task here, as a worker would: serialized, routed, retried, with its states and signals.

        ``throw`` raises the task's exception; default ``TASK_EAGER_PROPAGATES``. ``retries`` is how often it shall seem
        to have been retried. Options as for :meth:`apply_async`; it does not wait for ``countdown`` or ``eta``.
        """
        args, kwargs = self._checked(args, kwargs)
        check_call(options, self.name)
        if not LINKING.isdisjoint(options):
            sig = linked(self, args, kwargs, options)
            return cast("EagerResult[R]", sig.engine.run(sig, (), {}, {"throw": throw}))
        message = client.build(self.name, args, kwargs, options, self)
        throw = settings.TASK_EAGER_PROPAGATES if throw is None else throw
        return run_eagerly(message, throw=throw, retries=validate_max_retries(retries, name="retries") or 0)

    # As a part of something larger

    def signature(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Signature:
        """Return a call that is not made yet, with options as for :meth:`apply_async`."""
        return Signature(self, args, kwargs, options, **more)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """Return a call that is not made yet; arguments that are given later come first."""
        return Signature(self, args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """Return a call that is not made yet, and takes no more arguments."""
        return Signature(self, args, kwargs, immutable=True)

    def map(self, it: Iterable[Any]) -> xmap:
        """Return the call of one task that runs this one for each item, one after the other."""
        return xmap(self.s(), it)

    def starmap(self, it: Iterable[Any]) -> xstarmap:
        """Return the same, with the items as argument lists."""
        return xstarmap(self.s(), it)

    def chunks(self, it: Iterable[Any], n: int) -> chunks:
        """Return many calls as a group of tasks that run ``n`` of them each."""
        return chunks(self.s(), it, n)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[R]:
        """Return the handle of an earlier call of this task."""
        return AsyncResult(task_id, task_name=self.name, **kwargs)

    # While it runs

    @property
    def request(self) -> Context:
        """The call that runs here; outside of one, a request with Celery's defaults."""
        return request_of(self) or Context(task=self.name)

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Begin a request by hand, as tests of tasks do."""
        current_request.set(Context(*args, **{"_owner": self, "_outer": current_request.get(), **kwargs}))

    def pop_request(self) -> None:
        """End it."""
        request = current_request.get()
        if request is not None:
            current_request.set(request._outer)

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> exceptions.Retry:
        """Run the task again later, under the same id: ``raise self.retry(exc=error, countdown=60)``.

        ``args`` and ``kwargs`` replace the arguments, ``queue`` and ``priority`` move it. The delay is ``countdown``
        seconds, ``eta``, or ``default_retry_delay``. With ``throw=False`` the body goes on; the retry stands all the
        same.

        Raises ``Retry``; past ``max_retries`` the exception ``exc``, or
        :class:`~django_tasks.exceptions.MaxRetriesExceededError`; ``exc`` at once when the task was called as a
        function.
        """
        if exc is not None and not isinstance(exc, BaseException):
            raise TypeError(f"retry(exc=…) takes an exception, not {exc!r}")
        request = self.request
        if request.called_directly:
            raise exc if exc is not None else exceptions.Retry("Task can be retried", None)
        if max_retries is not None:
            request.max_retries = validate_max_retries(max_retries)
        changes, new_args, new_kwargs = self._changes(request, args, kwargs, options)
        limit = self.max_retries if max_retries is None else max_retries
        if limit is not None and request.retries >= limit:
            if exc is not None:
                raise exc
            shown_args, shown_kwargs = hidden_call(self.name, new_args, new_kwargs)
            raise exceptions.MaxRetriesExceededError(
                f"Can't retry {self.name}[{request.id}] args:{shown_args} kwargs:{shown_kwargs}",
                task_args=new_args,
                task_kwargs=new_kwargs,
            )
        delay, moment = due_of(self.default_retry_delay if eta is None and countdown is None else countdown, eta)
        when = moment or (int(delay) if delay.is_integer() else delay)
        retry = exceptions.Retry(exc=exc, when=when, is_eager=request.is_eager)
        retry.changes = changes  # type: ignore[attr-defined]
        if throw:
            raise retry
        request._retry = retry
        return retry

    def replace(self, sig: Signature) -> Any:
        """Put another call, or a canvas, in the place of the running task: ``raise self.replace(other.s())``.

        Whoever waits for this task waits for the last one of those from then on, which has its id; its callbacks,
        errbacks, place in a group or chord, headers and stamps are inherited. A group's results become a list. It
        happens when this raises, and not if the attempt has lost its lease.

        Raises an ``Ignore``; in eager mode it returns the result instead. Raises
        :class:`~django_tasks.exceptions.ImproperlyConfigured` for an empty chain, or a member of a chord.
        """
        return self.on_replace(taking_over(sig, self.request))

    def on_replace(self, sig: Signature) -> Any:
        """Runs in :meth:`replace`, and may change ``sig``; must end with ``super().on_replace(sig)``."""
        request = self.request
        if request.is_eager:
            return sig.apply().get(disable_sync_subtasks=False)
        delivery = request._delivery
        if delivery is None:
            raise RuntimeError(f"{self.name} does not run as a task here, so nothing can take its place")
        raise Replaced(replacement(sig, request, client.options_of(delivery.options)))

    def add_to_chord(self, sig: Signature, lazy: bool = False) -> Any:
        """Add a call, or a canvas, to the chord in whose header the running task is; return its result's handle.

        With ``lazy`` it is returned instead, for this task to send.
        Raises ``ValueError`` when the task is in no chord's header.
        """
        request = self.request
        if not request.chord:
            raise ValueError("The running task is in no chord's header")
        sig.set(group_id=request.group, group_index=request.group_index, chord=request.chord, root_id=request.root_id)
        sig.freeze()
        return sig if lazy else sig.delay()

    def signature_from_request(
        self,
        request: Context | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        **extra_options: Any,
    ) -> Signature:
        """Return the call that runs as a signature, with other arguments or options."""
        request = self.request if request is None else request
        info = request.delivery_info or {}
        options = {
            **{key: request.get(key) for key in ("headers", "shadow", "expires", "ignore_result")},
            **{"task_id": request.id, "root_id": request.root_id, "parent_id": request.parent_id},
            **{"time_limit": request.timelimit[0], "soft_time_limit": request.timelimit[1]},
            **{"queue": queue or info.get("queue"), "priority": info.get("priority")},
            **stamps_of(request),
            **extra_options,
        }
        given = {key: value for key, value in options.items() if value is not None}
        return self.signature(
            request.args if args is None else args, request.kwargs if kwargs is None else kwargs, given
        )

    subtask_from_request = signature_from_request

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None:
        """Tell how far the task is: ``self.update_state(state="PROGRESS", meta={"current": 3, "total": 10})``.

        Seen at once through ``AsyncResult.state`` and ``.info``. Does nothing when this attempt is not the owner any
        more, or when the task runs eagerly. A final state (``"FAILURE"``, …) is not seen while the task runs: it is how
        the task ends if it raises ``Ignore`` then, with ``meta`` as its result or exception.

        Raises ``ValueError`` for the id of another task, or what is no state;
        :class:`~django_tasks.exceptions.EncodeError` for ``meta`` that cannot be stored.
        """
        request = self.request
        if task_id is not None and task_id != request.id:
            raise ValueError("update_state() tells of the running task; the state of another one is not ours to set")
        if state is not None and not is_name(state, 64):
            raise ValueError(f"A state is a name of at most 64 characters, not {state!r}")
        if state in states.PROPAGATE_STATES:
            meta = _as_exception_data(meta)
        told = dumps(exception_to_data(meta) if isinstance(meta, BaseException) else meta)[1]
        delivery = request.get("_delivery")
        if delivery is None:
            return
        if state in states.FINISHED:
            request._told = (state, told)
        elif not request.is_eager:
            get_broker().report(delivery.id, delivery.attempt, state or "PROGRESS", told)

    def is_revoked(self) -> bool:
        """Should the running task stop: was it revoked, or has another worker taken it over? Asks the database."""
        delivery = self.request.get("_delivery")
        return bool(
            delivery is not None
            and not self.request.is_eager
            and get_broker().is_revoked(delivery.id, delivery.attempt)
        )

    # What subclasses may fill in

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Runs in the worker before the body; what it raises fails the task."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Runs in the worker once the result is stored."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Runs in the worker once the final failure is stored."""

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Runs in the worker once the retry is stored."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Runs last, after a success or a final failure."""

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
        """Return another name for people to see, or ``None``."""
        return None

    @property
    def __name__(self) -> str:
        cls: type = type(self)
        return cls.__name__

    def __repr__(self) -> str:
        return f"<@task: {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_name, (self.name,)

    # Inside

    def _checked(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        args, kwargs = as_arguments(self.name, args, kwargs)
        if self.typing:
            self._arguments.check(args, kwargs)
        if self._models is not None:
            return self._models.sent(args, kwargs, self.sensitive)
        return args, kwargs

    def _run_here(self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> EagerResult[Any]:
        message = client.prepare(self.name, args, kwargs, options, self)
        client.tell_sent(message, args, kwargs)
        return run_eagerly(message, throw=settings.TASK_EAGER_PROPAGATES)

    def _changes(
        self,
        request: Context,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> tuple[dict[str, Any], Any, Any]:
        """Return what a retry changes in the row, and the arguments of the next attempt."""
        for option in options:
            if option not in RETRY_OPTIONS:
                raise TypeError(f"retry() has no option {option!r}; it takes {', '.join(RETRY_OPTIONS)}")
        given = {key: value for key, value in options.items() if value is not None}
        delivery = request._delivery  # none, if a test pushed the request
        changes: dict[str, Any] = {}
        queue = given.get("queue") or given.get("routing_key") or given.get("exchange")
        if queue is not None:
            changes["queue"] = routing.validate_queue(queue)
        if "priority" in given:
            changes["priority"] = routing.validate_priority(given["priority"])
        new_args, new_kwargs = request.args, request.kwargs
        if args is not None or kwargs is not None:
            new_args, new_kwargs = self._arguments.merged(request.args, request.kwargs, args, kwargs)
            new_args, new_kwargs = self._checked(new_args, new_kwargs)
        if args is not None or kwargs is not None or "serializer" in given or "compression" in given:
            serializer, _, compression = (delivery.encoding if delivery else "").partition("+")
            serializer = given.get("serializer") or serializer or "json"
            compression = given.get("compression") or compression or None
            changes["encoding"], changes["body"] = client.encode(
                new_args, new_kwargs, serializer, compression, self, self.name
            )
        told = client.kept_options(given)
        if told:
            kept = client.options_of(delivery.options if delivery else None)
            headers = {**kept.get("headers", {}), **told.get("headers", {})}
            changes["options"] = dumps({**kept, **told, **({"headers": headers} if headers else {})})[1]
        return changes, new_args, new_kwargs


class _Current:
    """``current_task``: the task that runs here, or something false."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get(), name)

    def __bool__(self) -> bool:
        return current_request.get() is not None

    def __repr__(self) -> str:
        return repr(self._get()) if self else "<no task runs here>"

    def _get(self) -> Any:
        request = current_request.get()
        if request is None:
            raise AttributeError("No task runs here")
        return request._owner


#: The task that runs in this thread or coroutine, as Celery's ``current_task``.
current_task: Any = _Current()


def send_task(
    name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
) -> AsyncResult[Any]:
    """Send a task by name, also one that this process does not know; a known one gives its declared options."""
    if not is_name(name, 255):
        raise ValueError(f"A task's name is a string of 1 to 255 characters, not {name!r}")
    task = registry.tasks.get(name)
    if task is not None:
        return cast("AsyncResult[Any]", task.apply_async(args, kwargs, **options))
    if settings.TASK_ALWAYS_EAGER:
        raise exceptions.NotRegistered(name, ", so TASK_ALWAYS_EAGER cannot run it")
    check_call(options, name)
    if not LINKING.isdisjoint(options):
        given, named = as_arguments(name, args, kwargs)
        return cast("AsyncResult[Any]", send(linked(name, given, named, options), (), {}, {}))
    return _handle(client.send(name, *as_arguments(name, args, kwargs), options), name, options)


def _is_async(function: Any) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 - of an object that can be called
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _is_generator(function: Any) -> bool:
    ways = (function, getattr(function, "__call__", None))  # noqa: B004 - of an object that can be called
    return any(inspect.isgeneratorfunction(way) or inspect.isasyncgenfunction(way) for way in ways)


def _as_exception_data(meta: Any) -> Any:
    """Return an exception, or the ``exc_type`` and ``exc_message`` that Celery wants to be told, as stored data."""
    if isinstance(meta, Mapping) and "exc_type" in meta:
        message = meta.get("exc_message", ())
        args = list(message) if isinstance(message, list | tuple) else [message]
        text = ", ".join(map(str, args))
        return {
            "exc_type": str(meta["exc_type"]),
            "exc_module": meta.get("exc_module", ""),
            "exc_args": args,
            "text": text,
        }
    return exception_to_data(meta if isinstance(meta, BaseException) else exceptions.TaskError(meta))


def _handle(task_id: str, name: str, options: Mapping[str, Any], task: Any = None) -> AsyncResult[Any]:
    result: AsyncResult[Any] = AsyncResult(task_id, task_name=name)
    result.ignored = client.drops_result(options, task)
    return result


def _sent(message: Message, options: Mapping[str, Any], task: Any) -> AsyncResult[Any]:
    result = _handle(message.custom_id or message.id, message.name, options, task)
    result.conflict = message.conflict
    return result


def _by_name(name: str) -> Any:
    return registry.tasks[name]
