"""Private servers on free ports with the settings they come with: durable PostgreSQL, Redis, MariaDB.

Each run gets a fresh one and pays for nothing that another run left behind.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

#: How long a server may take to answer after its start, in seconds.
START_TIMEOUT = 30.0


class ServerMissing(RuntimeError):
    """The server's program is not on this machine."""

    def __init__(self, what: str, programs: Sequence[str]) -> None:
        super().__init__(f"{what} is not on this machine: none of {', '.join(programs)} was found.")


class Server(ABC):
    """A server process with its data in ``directory``."""

    #: What ends it without waiting for its clients.
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, directory: Path, port: int, pid: int = 0, modules: str = "") -> None:
        self.directory = directory
        self.port = port
        #: The root of the server's process tree; 0 when there is no process to charge.
        self.pid = pid
        #: Modules that the server is to load, for PostgreSQL.
        self.modules = modules

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect to."""

    @abstractmethod
    def set_up(self) -> None:
        """Fill the empty data directory, as :func:`account`."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command that runs the server in the foreground."""

    def answers(self) -> bool:
        """Tell whether it takes connections by now."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def count_statements(self, seconds: float) -> int | None:
        """Wait for ``seconds`` and return how many statements or commands arrived meanwhile; ``None``: who knows."""
        time.sleep(seconds)
        return None


class PostgreSQL(Server):
    """A PostgreSQL as ``initdb`` sets it up: fsync and synchronous commit are on."""

    stop_signal = signal.SIGINT

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def _log(self) -> Path:
        return self.directory / "server.log"

    def set_up(self) -> None:
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        _run([*_postgres("initdb"), "-D", f"{self.directory}/data", *options])

    def command(self) -> list[str]:
        place = ["-D", f"{self.directory}/data", "-p", str(self.port), "-k", str(self.directory)]
        return [*_postgres("postgres"), *place, "-c", f"shared_preload_libraries={self.modules}"]

    def answers(self) -> bool:
        # The port is open while the server still starts and turns everybody away.
        command = [*_postgres("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def count_statements(self, seconds: float) -> int:
        psql = [*_postgres("psql"), "-X", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        _run([*psql, "-c", "ALTER SYSTEM SET log_statement = 'all'", "-c", "SELECT pg_reload_conf()"])
        time.sleep(1)  # until every backend has read it
        start = self._log.stat().st_size
        time.sleep(seconds)
        with self._log.open() as log:
            log.seek(start)
            return sum(" LOG:  statement: " in line or " LOG:  execute " in line for line in log)


class Redis(Server):
    """A Redis that keeps nothing on disk: Celery's best case."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def set_up(self) -> None:
        pass

    def command(self) -> list[str]:
        settings = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self.directory)]
        return [*_program("Redis", "redis-server", "valkey-server"), "--port", str(self.port), *settings]

    def count_statements(self, seconds: float) -> int:
        # What a script does is not sent: it counts as one.
        found = b""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"MONITOR\r\n")
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                connection.settimeout(left)
                with contextlib.suppress(TimeoutError):
                    found += connection.recv(65_536)
        _, *lines = found.splitlines()  # the first says that it begins
        return sum(b" lua] " not in line for line in lines)


class MariaDB(Server):
    """A MariaDB as ``mariadb-install-db`` sets it up."""

    @property
    def url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/benchmark"

    def set_up(self) -> None:
        program = _program("MariaDB", "mariadb-install-db", "mysql_install_db")
        method = "--auth-root-authentication-method=normal"
        _run([*program, "--no-defaults", f"--datadir={self.directory}/data", method])
        (self.directory / "init.sql").write_text(
            "CREATE DATABASE benchmark CHARACTER SET utf8mb4;\n"
            "CREATE USER root@'127.0.0.1'; GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"
        )

    def command(self) -> list[str]:
        place = [f"--datadir={self.directory}/data", f"--socket={self.directory}/socket", f"--port={self.port}"]
        files = [f"--init-file={self.directory}/init.sql", f"--pid-file={self.directory}/pid"]
        return [*_program("MariaDB", "mariadbd", "mysqld"), "--no-defaults", "--bind-address=127.0.0.1", *place, *files]


class SQLite(Server):
    """No server: a file, and every process does the work itself."""

    @property
    def url(self) -> str:
        return f"sqlite:///{self.directory}/benchmark.sqlite3"

    def set_up(self) -> None:
        pass

    def command(self) -> list[str]:
        return []


KINDS: dict[str, type[Server]] = {"postgresql": PostgreSQL, "sqlite": SQLite, "mariadb": MariaDB, "redis": Redis}


@contextmanager
def started(kind: str, modules: str = "") -> Iterator[Server]:
    """Start a fresh private server of one of ``KINDS``; end it and remove its data afterwards.

    ``modules`` are loaded by PostgreSQL at its start.

    Raises ServerMissing when its program is not on this machine.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"benchmark-{kind}-")))
        os.chown(directory, account().pw_uid, account().pw_gid)
        server = KINDS[kind](directory, _free_port(), modules=modules)
        server.set_up()
        if command := server.command():
            with (directory / "server.log").open("wb") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, **_unprivileged()
                )
            stack.callback(_stop, process, server.stop_signal)
            _wait_until_it_answers(server, process)
            server.pid = process.pid
        yield server


@functools.cache
def account() -> pwd.struct_passwd:
    """Return the user that servers run as: ourselves, or ``nobody`` in root's place, which PostgreSQL refuses."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def _unprivileged() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    return {"user": account().pw_uid, "group": account().pw_gid, "extra_groups": []}


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False, **_unprivileged())
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr or done.stdout}")


def _program(what: str, *names: str) -> list[str]:
    for name in names:
        if found := shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin"):
            return [found]
    raise ServerMissing(what, names)


def _postgres(name: str) -> list[str]:
    # Debian keeps each version's programs off PATH.
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    return [str(newest[-1])] if newest else _program("PostgreSQL", name)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_it_answers(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not server.answers():
        if process.poll() is not None or time.monotonic() > deadline:
            log = (server.directory / "server.log").read_text(errors="replace")
            raise RuntimeError(f"{process.args!r} does not answer:\n{log[-2000:]}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    process.send_signal(stop_signal)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
