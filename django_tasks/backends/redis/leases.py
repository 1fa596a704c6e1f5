"""What Redis knows, in our words: who holds what, what waits, and which queues there are."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ... import states
from ..base import Queues
from ..message import Message
from . import wire
from .server import Server
from .wire import Entry, Lease

logger = logging.getLogger(__name__)

#: Messages, or ids, per call of a script.
MANY = 1_000
#: Seconds after which the names of the queues are looked up again.
FRESH = 1.0
#: The same where it may take so long until a new queue is seen.
KNOWN = 15.0
#: Seconds for which one worker sweeps for all.
TURN = 30
#: Seconds for which what a heartbeat said of the dead is as good as another look.
JUST_NOW = 0.2
#: Seconds after which all queues of a cluster are looked at for what somebody without a lease holds, though nobody has
#: lost one.
ORPHANS_EVERY = 30.0
#: What :meth:`Leases.remove` says of a task that somebody holds.
HELD = 2


#: A message, its entry, and its due time as ``publish.lua`` reads it.
Published = tuple[Message, bytes, str]


class Place(NamedTuple):
    """Where a task is: what it is, who holds it (with which lease), or when it is due."""

    queue: str
    id: str
    entry: Entry
    worker: int | None
    lease: Lease | None
    due: float | None

    @property
    def durable(self) -> bool:
        """Is there a row?"""
        flags = self.lease.flags if self.lease is not None else self.entry.flags
        return wire.DURABLE in flags

    @property
    def state(self) -> str:
        """The state that it shows."""
        if self.lease is not None:
            return states.STARTED
        return states.RETRY if wire.RETRIED in self.entry.flags else states.PENDING


class Proof(NamedTuple):
    """The end of an attempt, for Redis to hear; ``word``: ``1`` if the database says that the task is done for good,
    ``v`` if there is no row and the ledger says so, ``w`` if there is no row and the ledger is to know nothing."""

    id: str
    attempt: int
    word: str


class Taken(NamedTuple):
    """A lease as a step gives it; moments by the server's clock."""

    queue: str
    id: str
    entry: Entry
    due: float
    #: It must not start before the database was asked.
    stopped: bool

    @property
    def attempt(self) -> int:
        """The attempt that this lease is for."""
        return self.entry.attempt + 1


class Exchanged(NamedTuple):
    """What a step brought."""

    #: By the server's clock.
    now: float
    taken: list[Taken]
    #: Ids of what was believed to have no row, and has one.
    with_row: list[str]
    #: Ids of what was to end by the word ``w`` and did not.
    left: list[str]


class Move(NamedTuple):
    """How a lease ends without an end of its task; ``due`` and ``priority`` empty: as before."""

    id: str
    attempt: int
    #: ``drop``, ``back`` or ``put``.
    verb: str
    priority: str = ""
    due: str = ""
    #: For what is believed to have no row: with the flag ``v``, or that flag alone.
    entry: bytes = b""


class _Turn(NamedTuple):
    """What a heartbeat said of the turn to sweep."""

    at: float
    #: That of the server, which may have lost its data with the connection.
    generation: int
    who: str
    life: str | None


#: When it was asked, by ``time.monotonic()``, who holds something without a lease; and who did.
_Holders = tuple[float, list[tuple[str, int]]]
NOT_ASKED: _Holders = (-math.inf, [])


class Leases:
    """The scripts, by what they do. Every method raises ``OperationalError`` when the server cannot be reached."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._names: list[str] = []
        self._read = -math.inf
        #: What the server's clock said, and when, by ``time.monotonic()``.
        self._clock = (0.0, -math.inf)
        self._turn: _Turn | None = None
        self._holders = NOT_ASKED
        #: In a cluster, who had a lease when it was last looked who holds something, or since; and when that was.
        self._alive: frozenset[int] = frozenset()
        self._looked_at = -math.inf
        #: Workers whose leases have run out, until somebody is told.
        self._lost: list[int] = []

    # Queues

    def names(self, *, fresh: bool = False, avoid: bool = False) -> list[str]:
        """Return all queues there are, in order of their names."""
        if fresh or self.age > FRESH:
            found = self.server.command("ZRANGE", self.server.shared("queues"), 0, -1, avoid=avoid)
            self._learn([name.decode() for name in found])
        return self._names

    @property
    def age(self) -> float:
        """Seconds since the names of the queues were looked up."""
        return time.monotonic() - self._read

    def _learn(self, names: Sequence[str]) -> None:
        self._names = sorted(names)
        self._read = time.monotonic()

    def of(self, queues: Queues, *, fresh: bool = False, known: bool = False) -> list[str]:
        """Return those of these queues that there may be, in their order. ``known``: without asking."""
        names = queues.names or (self._names if known else self.names(fresh=fresh))
        return [name for name in names if name not in queues.excluded]

    def forget_unused(self, seconds: float) -> list[str]:
        """Forget queues that nothing was sent to for so many seconds, and where nothing waits and nothing is held;
        return their names. What is sent meanwhile is noticed: a sender names the queue first, or in the same moment."""
        names = self.server.shared("queues")
        unused = self.server.command("ZRANGE", names, "-inf", self.now() - seconds, "BYSCORE", "LIMIT", 0, MANY)
        return [
            name.decode()
            for name in unused
            if self.server.run("vacate", [self.server.queue(name.decode())])
            and self.server.run("forget", [names], [name, seconds])
        ]

    # Sending

    def publish(self, messages: Iterable[Published], mode: str, *, avoid: bool = False) -> int:
        """Let tasks wait: each with its entry, and its due time as ``publish.lua`` reads it; return how many are
        new."""
        by_queue: dict[str, list[Published]] = {}
        for each in messages:
            by_queue.setdefault(each[0].queue, []).append(each)
        count = 0
        for queue, all_of_it in by_queue.items():
            if queue not in self._names:
                self._names = sorted([*self._names, queue])
            keys = self._name(queue, avoid=avoid)
            for start in range(0, len(all_of_it), MANY):
                words: list[Any] = [queue, mode]
                for message, entry, due in all_of_it[start : start + MANY]:
                    words += (wire.key(message.id), message.priority, due, entry)
                count += int(self.server.run("publish", keys, words, avoid=avoid))
        return count

    def wake(self, queues: Iterable[str], *, avoid: bool = False) -> None:
        """Have an idle worker of each of these queues look what there is."""
        for queue in queues:
            self.server.run("wake", self._name(queue, avoid=avoid), [queue], avoid=avoid)

    def _name(self, queue: str, *, avoid: bool) -> list[str]:
        """Return the keys of a script that says that a queue is in use; in a cluster that is said here."""
        keys, named = [self.server.queue(queue)], [self.server.shared("queues"), self.server.shared("new")]
        if not self.server.is_cluster:
            return keys + named
        self.server.run("name", named, [queue], avoid=avoid)
        return keys

    # The step

    def step(
        self,
        proofs: Mapping[str, Sequence[Proof]],
        queues: Sequence[str],
        *,
        worker: int,
        slot: int,
        limit: int,
        unknown: Sequence[str],
        released: Sequence[Published] = (),
    ) -> Exchanged:
        """Forget what ended, let wait what is released by that into one of ``queues`` (not in a cluster), lease what is
        due."""
        if not self.server.is_cluster:
            return self._step(proofs, queues, worker, slot, limit, unknown, released)
        found = Exchanged(0.0, [], [], [])
        for queue, some in proofs.items():
            more = self._step({queue: some}, [], worker, slot, 0, ())
            found = Exchanged(more.now, [], found.with_row + more.with_row, found.left + more.left)
        for queue in queues:
            if len(found.taken) >= limit:
                break
            more = self._step({}, [queue], worker, slot, limit - len(found.taken), unknown)
            found = found._replace(now=more.now, taken=found.taken + more.taken)
        return found

    def _step(
        self,
        proofs: Mapping[str, Sequence[Proof]],
        queues: Sequence[str],
        worker: int,
        slot: int,
        limit: int,
        unknown: Sequence[str],
        released: Sequence[Published] = (),
    ) -> Exchanged:
        words: list[Any] = [worker, slot, limit, 0, len(proofs)]
        for some in proofs.values():
            words.append(len(some))
            for one in some:
                words += (wire.key(one.id), one.attempt, one.word)
        words.append(len(released))
        for message, written, due in released:
            words += (queues.index(message.queue) + 1, message.queue)
            words += (wire.key(message.id), message.priority, due, written)
        words += unknown
        keys = [self.server.queue(name) for name in (*proofs, *queues)]
        if released:
            keys += [self.server.shared("queues"), self.server.shared("new")]
        return self._read_step(self.server.run("step", keys, words), queues, worker)

    def step_ahead(self, queues: Sequence[str], *, worker: int, slot: int, unknown: Sequence[str]) -> list[Any]:
        """Return what follows the name of the script ``step`` to lease one task to a worker, should it then have its
        own lease; :meth:`read_ahead` reads the answer. Not in a cluster."""
        keys = [*map(self.server.queue, queues), self.server.shared("workers")]
        return [len(keys), *keys, worker, slot, 1, 1, 0, 0, *unknown]

    def read_ahead(self, found: Sequence[Any], queues: Sequence[str], worker: int) -> Exchanged:
        """Read the answer to :meth:`step_ahead`."""
        return self._read_step(found, queues, worker)

    def _read_step(self, found: Sequence[Any], queues: Sequence[str], worker: int) -> Exchanged:
        now, kept = float(found[0]), 3 + int(found[1])
        left = kept + int(found[2])
        self._clock = now, time.monotonic()
        taken = []
        broken: list[tuple[str, bytes, bytes]] = []
        for at in range(left, len(found), 5):
            queue, key, text = queues[found[at] - 1], found[at + 1], found[at + 2]
            try:
                entry = Entry.read(text)
            except (ValueError, TypeError, AttributeError, IndexError):
                broken.append((queue, key, text))
                continue
            taken.append(Taken(queue, wire.name_of(key), entry, float(found[at + 3]), found[at + 4] == 1))
        for queue, key, text in broken:
            self._put_broken_aside(queue, key, text, worker)
        return Exchanged(now, taken, list(map(wire.name_of, found[3:kept])), list(map(wire.name_of, found[kept:left])))

    def _put_broken_aside(self, queue: str, key: bytes, text: bytes, worker: int) -> None:
        """Somebody else wrote this: keep some of it for a look, and let it be in nobody's way."""
        logger.error("An entry of queue %s cannot be read and is put aside: %.200r", queue, text)
        base, kept = self.server.queue(queue), self.server.shared("broken")
        self.server.many(
            [
                ("HDEL", f"{base}:l:{worker}", key),
                ("HDEL", f"{base}:m", key),
                ("LPUSH", kept, text[:10_000]),
                ("LTRIM", kept, 0, 99),
            ]
        )

    def settle(self, queue: str, worker: int, moves: Sequence[Move]) -> set[str]:
        """End leases of a worker; return the ids of those that were still the ones."""
        done: set[str] = set()
        for start in range(0, len(moves), MANY):
            words: list[Any] = [worker]
            for one in moves[start : start + MANY]:
                words += (wire.key(one.id), one.attempt, one.verb, one.priority, one.due, one.entry)
            done |= {wire.name_of(key) for key in self.server.run("settle", [self.server.queue(queue)], words)}
        return done

    def add_row(self, queue: str, worker: int, held: Mapping[str, int]) -> set[str]:
        """Note that tasks have a row now; return the ids of those whose lease was still the one."""
        words: list[Any] = [worker]
        for task_id, attempt in held.items():
            words += (wire.key(task_id), attempt)
        return {wire.name_of(key) for key in self.server.run("promote", [self.server.queue(queue)], words)}

    # Looking

    def look(self, ids: Sequence[str], queues: Sequence[str] | None = None, *, avoid: bool = False) -> dict[str, Place]:
        """Return where tasks are; what Redis does not know is left out. ``queues``: where to look, else in all."""
        found: dict[str, Place] = {}
        for queue in self.names(fresh=True, avoid=avoid) if queues is None else dict.fromkeys(queues):
            missing = [one for one in ids if one not in found]
            for start in range(0, len(missing), MANY):
                some = missing[start : start + MANY]
                words = self.server.run(
                    "look", [self.server.queue(queue)], [wire.key(one) for one in some], avoid=avoid
                )
                for at, task_id in enumerate(some):
                    place = _place(queue, task_id, words[4 * at : 4 * at + 4])
                    if place is not None:
                        found[task_id] = place
        return found

    def missing(self, ids_by_queue: Mapping[str, Sequence[str]]) -> set[str]:
        """Return which of these tasks are in none of these queues."""
        found: set[str] = set()
        for queue, ids in ids_by_queue.items():
            for start in range(0, len(ids), MANY):
                some = [wire.key(one) for one in ids[start : start + MANY]]
                found |= {wire.name_of(key) for key in self.server.run("missing", [self.server.queue(queue)], some)}
        return found

    def held(self, worker: int, slot: int | None = None) -> list[tuple[str, str, Lease]]:
        """Return what a worker holds: queue, id, lease."""
        names = self.names(fresh=True)
        answers = self.server.many([("HGETALL", f"{self.server.queue(name)}:l:{worker}") for name in names])
        found = [
            (name, wire.name_of(key), Lease.read(text))
            for name, answer in zip(names, answers, strict=True)
            for key, text in _pairs(answer)
        ]
        return [each for each in found if slot is None or each[2].slot == slot]

    def leases(self, worker: int, ids_by_queue: Mapping[str, Sequence[str]]) -> dict[str, Lease]:
        """Return the leases that a worker has on these tasks."""
        commands = [
            ("HMGET", f"{self.server.queue(queue)}:l:{worker}", *map(wire.key, ids))
            for queue, ids in ids_by_queue.items()
        ]
        answers = self.server.many(commands) if len(commands) > 1 else [self.server.command(*one) for one in commands]
        return {
            task_id: Lease.read(text)
            for ids, answer in zip(ids_by_queue.values(), answers, strict=True)
            for task_id, text in zip(ids, answer, strict=True)
            if text
        }

    def check(self, worker: int, attempts: Mapping[str, Mapping[str, int]]) -> dict[str, tuple[set[str], set[str]]]:
        """Return, by queue, which of these leases a worker has lost, and the ids of what has been given a row."""
        parts = [[queue] for queue in attempts] if self.server.is_cluster else [list(attempts)]
        found: dict[str, tuple[set[str], set[str]]] = {}
        for queues in parts:
            words: list[Any] = [worker]
            for queue in queues:
                words.append(len(attempts[queue]))
                for task_id, attempt in attempts[queue].items():
                    words += (wire.key(task_id), attempt)
            answers = self.server.run("check", [self.server.queue(queue) for queue in queues], words)
            for queue, (lost, with_row) in zip(queues, answers, strict=True):
                found[queue] = set(map(wire.name_of, lost)), set(map(wire.name_of, with_row))
        return found

    def survey(self, queues: Queues, paused: Collection[str]) -> tuple[float | None, float | None]:
        """Return in how many seconds the first task is due, and the first of those that are not due yet; of what is not
        paused."""
        if queues.names or self.server.is_cluster:
            names = self.of(queues, fresh=True)
            keys = [self.server.queue(name) for name in names]
            parts = [[key] for key in keys] if self.server.is_cluster else [keys] if keys else []
            words = [word for part in parts for word in self.server.run("survey", part)]
        else:
            around = self.server.queue("\n").split("\n")
            words = self.server.run("survey", [self.server.shared("queues")], around)
            names = [word.decode() for word in words[::3]]
            self._learn(names)
        looks = [
            (first, later)
            for name, first, later in zip(names, words[1::3], words[2::3], strict=True)
            if name not in queues.excluded and name not in paused
        ]
        firsts = [float(first) for first, _ in looks if first]
        laters = [float(later) for _, later in looks if later]
        return min(firsts, default=None), min(laters, default=None)

    def scheduled(self, names: Sequence[str], limit: int) -> list[Place]:
        """Return what becomes due later in these queues, the next first of each."""
        now = repr(self.now())
        ids: dict[str, list[bytes]] = {}
        for name in names:
            base = self.server.queue(name)
            priorities = self.server.command("ZRANGE", f"{base}:p", 0, -1)
            answers = self.server.many(
                [
                    ("ZRANGE", f"{base}:r:{int(each)}", f"({now}", "+inf", "BYSCORE", "LIMIT", 0, limit)
                    for each in priorities
                ]
            )
            ids[name] = [key for answer in answers for key in answer]
        found: list[Place] = []
        for name, keys in ids.items():
            found += self.look([wire.name_of(key) for key in keys], [name]).values()
        return sorted(found, key=lambda place: place.due or 0.0)[:limit]

    def waiting(self, queue: str) -> Iterator[list[Place]]:
        """Yield what waits in a queue, now or for later, part by part; each is to be taken out before the next."""
        base = self.server.queue(queue)
        for priority in self.server.command("ZRANGE", f"{base}:p", 0, -1):
            seen: set[bytes] = set()
            while keys := self.server.command("ZRANGE", f"{base}:r:{int(priority)}", 0, MANY - 1):
                if seen.issuperset(keys):
                    break  # nobody takes these out
                seen.update(keys)
                yield list(self.look([wire.name_of(key) for key in keys], [queue]).values())

    def is_empty(self) -> bool:
        """Does nothing wait, and does nobody hold anything?"""
        names = self.names(fresh=True)
        return not any(self.server.many([("EXISTS", f"{self.server.queue(name)}:m") for name in names]))

    # Out of the queue

    def stop(self, queue: str, ids: Sequence[str]) -> dict[str, tuple[int, Lease] | bool]:
        """Let tasks not start unasked; return who holds each, else whether it is there."""
        found: dict[str, tuple[int, Lease] | bool] = {}
        for start in range(0, len(ids), MANY):
            some = ids[start : start + MANY]
            words = self.server.run("stop", [self.server.queue(queue)], [wire.key(one) for one in some])
            for task_id, word in zip(some, words, strict=True):
                worker, space, lease = word.partition(b" ")
                found[task_id] = (int(worker), Lease.read(lease)) if space else word == b"1"
        return found

    def remove(self, queue: str, ids: Sequence[str]) -> dict[str, int]:
        """Take out what nobody holds; return for each 1 if it was removed, 2 if somebody holds it, 0 if it is not
        there."""
        found: dict[str, int] = {}
        for start in range(0, len(ids), MANY):
            some = ids[start : start + MANY]
            words = self.server.run("remove", [self.server.queue(queue)], [wire.key(one) for one in some])
            found.update(zip(some, map(int, words), strict=True))
        return found

    def give(self, queue: str, ids: Sequence[str]) -> set[str]:
        """Take out what nobody holds, for good; return the ids of that. Until :meth:`forget_given` it is known that
        they were."""
        given: set[str] = set()
        for start in range(0, len(ids), MANY):
            some = [wire.key(one) for one in ids[start : start + MANY]]
            given |= {wire.name_of(key) for key in self.server.run("give", [self.server.queue(queue)], some)}
        return given

    def given(self, queue: str) -> set[str]:
        """Return the ids of what :meth:`give` took out, and was not forgotten since."""
        return {wire.name_of(key) for key in self.server.command("SMEMBERS", f"{self.server.queue(queue)}:g")}

    def forget_given(self, queue: str) -> None:
        """Their rows say where they are."""
        self.server.command("DEL", f"{self.server.queue(queue)}:g")

    def empty(self, queue: str) -> Iterator[tuple[str, str]]:
        """Take out all that waits; yield id and flags of each."""
        while words := self.server.run("empty", [self.server.queue(queue)]):
            yield from ((wire.name_of(words[at]), words[at + 1].decode()) for at in range(0, len(words), 2))

    # Workers

    def begin(self, worker: int, seconds: float, mark: str) -> str:
        """Begin a worker's lease; return the mark of this life of the data, ``mark`` if it has none."""
        keys = [self.server.shared("workers"), self.server.shared("mark")]
        return str(self.server.run("lease", keys, [worker, seconds, mark]).decode())

    def renew(self, worker: int, seconds: float, known: str, mark: str, sweeper: str) -> str | None:
        """Renew a worker's lease; return the mark, ``None`` if the lease was lost.

        The answer tells of other things, too: for a moment :meth:`dead` need not ask, and for longer :meth:`turn`.
        """
        keys = [self.server.shared(one) for one in ("workers", "mark", "sweeper", "queues")]
        words = [worker, seconds, known, mark, sweeper, TURN]
        if not self.server.is_cluster:
            words += self.server.queue("\n").split("\n")
        found, life, lost, names, rest = self.server.run("beat", keys, words)
        now = time.monotonic()
        self._turn = _Turn(now, self.server.generation, sweeper, life.decode() or None)
        self._lost += map(int, lost)
        self._learn([name.decode() for name in names])
        if not self.server.is_cluster:
            self._holders = now, [(names[at - 1].decode(), int(worker)) for at, worker in _in_pairs(rest)]
        elif self._are_all_there(frozenset(map(int, rest))):
            self._holders = now, []
        return found.decode() or None

    def _are_all_there(self, alive: frozenset[int]) -> bool:
        """Have all who had a lease a moment ago still got it? Whoever holds something without one has just lost it;
        what one that was frozen took after that is found now and then."""
        if self._lost or not self._alive <= alive or time.monotonic() - self._looked_at > ORPHANS_EVERY:
            return False
        self._alive = alive
        return True

    def workers(self) -> frozenset[int]:
        """Return the workers that have a lease, or had one a moment ago."""
        return frozenset(map(int, self.server.command("ZRANGE", self.server.shared("workers"), 0, -1)))

    def untouched(self, worker: int) -> float:
        """Return a moment: what a worker holds that was published before then, nobody has taken back. While it has its
        lease that is everything, else what was published in an earlier life of the data."""
        keys = self.server.shared("workers"), self.server.shared("mark")
        lease, mark = self.server.many([("ZSCORE", keys[0], worker), ("GET", keys[1])])
        return math.inf if lease is not None or mark is None else float(mark.partition(b" ")[2] or 0)

    def end(self, worker: int) -> None:
        """End a worker's lease."""
        self.server.command("ZREM", self.server.shared("workers"), worker)

    def dead(self) -> tuple[list[int], list[tuple[str, int]]]:
        """End the leases that have run out; return whose, and which workers without a lease hold something, and in
        which queue. One that is new since a survey is looked at the next time."""
        (asked_at, holders), self._holders = self._holders, NOT_ASKED
        if time.monotonic() - asked_at > JUST_NOW:
            holders = self._look_for_dead()
        lost, self._lost = self._lost, []
        return lost, holders

    def _look_for_dead(self) -> list[tuple[str, int]]:
        names = self._names if self.age < KNOWN else self.names()
        workers = self.server.shared("workers")
        if self.server.is_cluster:
            self._lost += map(int, self.server.run("expire", [workers]))
            alive = frozenset(map(int, self.server.command("ZRANGE", workers, 0, -1)))
            held = self.server.many([("SMEMBERS", f"{self.server.queue(name)}:h") for name in names])
            pairs = [(name, int(worker)) for name, answer in zip(names, held, strict=True) for worker in answer]
            found = [each for each in pairs if each[1] not in alive]
            self._alive, self._looked_at = alive, -math.inf if found else time.monotonic()
            return found
        lost, holders = self.server.run("dead", [workers, *map(self.server.queue, names)])
        self._lost += map(int, lost)
        return [(names[at - 1], int(worker)) for at, worker in _in_pairs(holders)]

    def turn(self, who: str, mark: str) -> str | None:
        """Take or keep the turn to sweep; return what tells one life of the data from the next, ``None`` if it is
        another one's turn."""
        known = self._turn
        if (
            known is not None
            and (known.who, known.generation) == (who, self.server.generation)
            and time.monotonic() - known.at < TURN / 2
        ):
            return known.life
        found = self.server.run("turn", [self.server.shared("sweeper"), self.server.shared("mark")], [who, TURN, mark])
        return found.decode() if found else None

    def leave(self, queue: str, worker: int) -> None:
        """Forget a worker that holds nothing in this queue."""
        self.server.run("leave", [self.server.queue(queue)], [worker])

    def clock(self) -> float:
        """Return the server's clock, without asking if it has told a moment ago."""
        now, heard_at = self._clock
        ago = time.monotonic() - heard_at
        return now + ago if ago < KNOWN else self.now()

    def now(self) -> float:
        """Return the server's clock."""
        command = ("TIME",)
        if self.server.is_cluster:
            client = self.server.client()
            with self.server.telling():
                seconds, micros = client.time(target_nodes=client.get_default_node())
        else:
            seconds, micros = self.server.command(*command)
        return int(seconds) + int(micros) / 1e6


def _place(queue: str, task_id: str, words: Sequence[bytes]) -> Place | None:
    entry, worker, lease, due = words
    if not entry:
        return None
    return Place(
        queue,
        task_id,
        Entry.read(entry),
        int(worker) if worker else None,
        Lease.read(lease) if lease else None,
        float(due) if due else None,
    )


def _in_pairs(words: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(words[::2], words[1::2], strict=True)


def _pairs(answer: Any) -> Iterable[tuple[bytes, bytes]]:
    """Return what HGETALL says, whichever way redis-py does."""
    if isinstance(answer, Mapping):
        return answer.items()
    return _in_pairs(answer)
