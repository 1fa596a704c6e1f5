"""A private PgBouncer in transaction mode: each transaction of a client may meet another server process."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psycopg

from tests.eventually import eventually
from tests.servers import PATIENCE, ServerFailed, ServerMissing, execute, free_port, service_user, tied_to_this_process

#: Server processes for all clients of a database together: fewer than clients, so that these share them.
POOL_SIZE = 3

CONFIGURATION = """
[databases]
* = host={host} port={port} user={user} {password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 200
server_round_robin = 1
"""


class PgBouncer:
    """A PgBouncer in front of the server of ``url``, from ``with`` to its end.

    Raises ``ServerMissing`` when there is none on this machine, ``ServerFailed`` when it does not start.
    """

    def __init__(self, url: str) -> None:
        places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
        program = shutil.which("pgbouncer", path=places)
        if program is None:
            raise ServerMissing("pgbouncer is not on this machine")
        self._program = program
        self._behind = urlsplit(url)
        self._port = free_port()
        #: The same database, through the pooler.
        self.url = self._behind._replace(netloc=f"{self._behind.username}@127.0.0.1:{self._port}").geturl()

    def __enter__(self) -> Self:
        user = service_user("postgresql")  # it refuses to run as root
        self._home = Path(tempfile.mkdtemp(prefix="test-bouncer-", dir="/tmp"))
        configuration = self._home / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(
                host=self._behind.hostname,
                port=self._behind.port or 5432,
                user=self._behind.username,
                password=f"password={self._behind.password}" if self._behind.password else "",
                own_port=self._port,
                pool_size=POOL_SIZE,
            )
        )
        if user:
            for path in (self._home, configuration):
                shutil.chown(path, user.pw_uid, user.pw_gid)
        log = self._home / "log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [*tied_to_this_process(), self._program, str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self._home,
                start_new_session=True,
                user=user and user.pw_uid,
                group=user and user.pw_gid,
                extra_groups=[] if user else None,
            )
        try:
            eventually(lambda: self._process.poll() is not None or self._answers(), timeout=PATIENCE)
            if self._process.poll() is not None:
                raise ServerFailed(f"pgbouncer ended with {self._process.returncode}:\n{log.read_text()}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Kill it and remove its files."""
        self._process.kill()
        self._process.wait(PATIENCE)
        shutil.rmtree(self._home)

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            execute(self.url)
            return True
        return False
