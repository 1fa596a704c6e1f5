"""How a worker, or a caller that waits, hears from Redis that something happened."""

from __future__ import annotations

import contextlib
import select
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar

from ...exceptions import OperationalError
from ..base import Queues, ResultWaker, Waker
from ..control import Answer, Line, Node
from . import wire
from .leases import Leases
from .server import Server

#: Seconds for which one wait for a token lasts, and between looks without one: an idle worker sends a handful of
#: commands a minute.
PATIENCE, NET = 60, 20.0
#: Seconds for which a command's token is kept for a worker that does not listen.
KEPT = 60
#: Seconds after which a caller asks again, whatever it has heard.
LOOK = 1.0
#: The same while nobody knows the task: at first, and at most.
UNKNOWN, UNKNOWN_MOST = 0.05, 0.5
#: Seconds for which Redis remembers that somebody waits, if that one dies.
AWAITED = 3_600


class Wait:
    """A connection of its own that waits for tokens of some keys, all on one server."""

    def __init__(self, server: Server, key: str) -> None:
        """``key`` is one of them."""
        self._server = server
        self._client = server.client_of(key)
        self._connection = server.connection(self._client)
        #: What it was last asked to wait for.
        self.keys: list[str] = []
        #: Is there an answer to come?
        self.asks = False
        with server.telling():
            self._connection.send_command("CLIENT", "ID")
            self._number = int(self._connection.read_response())

    def fileno(self) -> int:
        """Return what becomes readable when there is an answer, or the connection is gone."""
        return int(self._connection._sock.fileno())

    def ask(self, keys: Sequence[str], seconds: int) -> None:
        """Begin to wait."""
        self.keys = list(keys)
        with self._server.telling():
            self._connection.send_command("BLPOP", *keys, seconds)
        self.asks = True

    def end(self) -> None:
        """End the wait that is under way, unless Redis has not begun it yet; its answer is nothing then."""
        with contextlib.suppress(OperationalError), self._server.telling():
            self._client.execute_command("CLIENT", "UNBLOCK", self._number)

    def is_answered(self) -> bool:
        """Is there an answer, or is the connection gone?"""
        return bool(select.select([self], [], [], 0)[0])

    def answer(self) -> str | None:
        """Return whose token it was. Raises ``OperationalError`` when the connection is gone."""
        self.asks = False
        with self._server.telling():
            found = self._connection.read_response(disable_decoding=True)
        return None if found is None else str(found[0].decode())

    def close(self) -> None:
        """Give the connection back."""
        self._connection.disconnect()


class TokenWaker(Waker):
    """Waits for tokens.

    A token of a queue is for one worker: whoever takes it without being idle hands it on. A busy worker waits for the
    tokens of commands alone, and so does one whose idle processes all have a :class:`.takers.RedisTaker`.
    """

    tells_commands: ClassVar[bool] = True
    net: ClassVar[float] = NET

    def __init__(self, leases: Leases, worker: int, queues: Queues, *, idle: bool) -> None:
        self._leases = leases
        self._server = leases.server
        self._wanted = queues
        self._new = self._server.shared("new")
        self._own = self._server.shared(f"command:{worker}")
        self._idle = idle
        self._commanded = False
        self._known = leases.of(queues, known=True)

    def interval(self, idle_for: float) -> float:
        return PATIENCE / 2

    def listen(self, idle: bool) -> None:
        """Wait for tasks, too, or for commands alone."""
        if idle != self._idle:
            self._idle = idle
            self._end_outdated()  # woken() begins others

    def woken(self) -> bool:
        """Raises :class:`~django_tasks.exceptions.OperationalError` when a connection is gone: make a new waker."""
        self.resume()
        while (wait := self._answered()) is not None:
            if self._hear(wait):
                return True
            self.resume()
        self._end_outdated()  # there is a new queue
        return False

    @abstractmethod
    def resume(self) -> None:
        """Wait for whatever is not waited for."""

    @abstractmethod
    def _answered(self) -> Wait | None:
        """Return one that has an answer."""

    @abstractmethod
    def _end_outdated(self) -> None:
        """End what does not wait for what it should."""

    def commanded(self) -> bool:
        commanded, self._commanded = self._commanded, False
        return commanded

    def outdated(self) -> bool:
        known, self._known = self._known, self._leases.of(self._wanted, known=True)
        return known != self._known

    def _hear(self, wait: Wait) -> bool:
        """Take an answer in; is it a hint?"""
        token = wait.answer()
        if token is None:
            return False
        if token == self._own:
            self._commanded = True
            return False
        if token == self._new:
            self._leases.names(fresh=True)
        if not self._idle:
            self._server.many([("RPUSH", token, b"1"), ("LTRIM", token, 0, 0)])  # for somebody who is
        return self._idle

    def _shared_keys(self) -> list[str]:
        return [self._new, self._own] if self._idle and not self._wanted.names else [self._own]

    def _queue_keys(self) -> list[str]:
        if not self._idle:
            return []
        return [f"{self._server.queue(name)}:k" for name in self._leases.of(self._wanted, known=True)]


class RedisWaker(TokenWaker):
    """Waits for everything at once."""

    def __init__(self, leases: Leases, worker: int, queues: Queues, *, idle: bool) -> None:
        super().__init__(leases, worker, queues, idle=idle)
        self._wait = Wait(self._server, self._own)
        self.resume()

    def fileno(self) -> int | None:
        return self._wait.fileno()

    def resume(self) -> None:
        if not self._wait.asks:
            self._wait.ask(self._keys(), PATIENCE)

    def close(self) -> None:
        self._wait.close()

    def _answered(self) -> Wait | None:
        return self._wait if self._wait.is_answered() else None

    def _end_outdated(self) -> None:
        if self._wait.asks and self._wait.keys != self._keys():
            self._wait.end()

    def _keys(self) -> list[str]:
        return [*self._queue_keys(), *self._shared_keys()]


class RedisCaller(ResultWaker):
    """Hears when one task has ended; only while somebody waits is anything said of it."""

    def __init__(self, leases: Leases, task_id: str, queue_of: Callable[[str], str | None]) -> None:
        self._leases = leases
        #: Where the row says that a task is to run which is not in Redis yet.
        self._queue_of = queue_of
        self._pause = UNKNOWN
        #: It may have ended before anybody listened.
        self._to_look = True
        self._server = leases.server
        self._id = task_id
        self._key = wire.key(task_id)
        self._channel = ""
        self._connection: Any = None
        self._find()

    def wait(self, timeout: float) -> None:
        if not self._channel:
            time.sleep(min(timeout, self._pause))
            self._pause = min(2 * self._pause, UNKNOWN_MOST)
            self._find()
            return
        if self._to_look:
            self._to_look = False
            return
        end = time.monotonic() + min(timeout, LOOK)
        while (left := end - time.monotonic()) > 0:
            with self._server.telling():
                if not self._connection.can_read(left):  # which knows of messages that were read along, too
                    return
                answer = self._connection.read_response(disable_decoding=True)
            if answer[0] == b"message" and answer[2] == self._key:
                return

    def close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
        if self._channel:
            with contextlib.suppress(OperationalError):
                self._server.command("SREM", self._channel, self._key)

    def _find(self) -> None:
        """Say that somebody waits, once the task is known; before that it is asked for again and again."""
        place = self._leases.look([self._id]).get(self._id)
        queue = place.queue if place is not None else self._queue_of(self._id)
        if queue is None:
            return
        self._channel = f"{self._server.queue(queue)}:a"
        self._connection = self._server.connection()
        with self._server.telling():
            self._connection.send_command("SUBSCRIBE", self._channel)
            self._connection.read_response(disable_decoding=True)
        self._server.many([("SADD", self._channel, self._key), ("EXPIRE", self._channel, AWAITED)])


class RedisLine(Line):
    """The database keeps commands and replies; Redis tells idle workers at once."""

    def __init__(self, line: Line, leases: Leases) -> None:
        self._line = line
        self._leases = leases

    def nodes(self) -> list[Node]:
        return self._line.nodes()

    def beats(self) -> list[Node]:
        return self._line.beats()

    def send(
        self,
        name: str,
        arguments: str,
        *,
        destination: Collection[str] | None = None,
        wants_replies: bool = False,
        lifetime: float,
    ) -> int:
        command = self._line.send(
            name, arguments, destination=destination, wants_replies=wants_replies, lifetime=lifetime
        )
        server = self._leases.server
        keys = [
            server.shared(f"command:{node.id}")
            for node in self._line.nodes()
            if destination is None or node.name in destination
        ]
        # Workers look for commands now and then anyway.
        with contextlib.suppress(OperationalError):
            for key in keys:
                server.many([("RPUSH", key, b"1"), ("LTRIM", key, 0, 0), ("EXPIRE", key, KEPT)])
        return command

    def replies(self, command: int, known: Collection[int] = ()) -> list[Answer]:
        return self._line.replies(command, known)

    def wait(self, timeout: float) -> None:
        self._line.wait(timeout)

    def close(self) -> None:
        self._line.close()
