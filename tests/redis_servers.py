"""Redis in other ways than one server on a port: behind Sentinels, as a cluster, encrypted."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import redis
import trustme
from redis.exceptions import RedisError

from django_tasks.backends.redis import server as scripts
from tests.eventually import eventually
from tests.servers import Redis, ServerMissing, free_port

SERVICE = "tasks"
SLOTS = 16_384
#: The names of our scripts by their digests.
SCRIPTS = {
    scripts.script_text(file.stem, sparing=sparing)[1]: file.stem
    for file in (Path(scripts.__file__).parent / "scripts").glob("*.lua")
    for sparing in (True, False)
}


class EncryptedRedis(Redis):
    """A Redis that speaks TLS alone, and asks for the client's certificate."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self._names = names or ("127.0.0.1", "localhost")

    def create(self) -> None:
        super().create()
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        issued = authority.issue_cert(*self._names)
        issued.private_key_pem.write_to_path(self.key)
        for part in issued.cert_chain_pems:
            part.write_to_path(self.certificate, append=True)
        for file in (self.authority, self.key, self.certificate):
            file.chmod(0o644)

    @property
    def authority(self) -> Path:
        return self.home / "ca.pem"

    @property
    def key(self) -> Path:
        return self.home / "key.pem"

    @property
    def certificate(self) -> Path:
        return self.home / "certificate.pem"

    def command(self) -> list[str]:
        files = ["--tls-ca-cert-file", self.authority, "--tls-key-file", self.key, "--tls-cert-file", self.certificate]
        return [*super().command(), "--port", "0", "--tls-port", str(self.port), *map(str, files)]

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={self.authority}&{self.own_files}"

    @property
    def own_files(self) -> str:
        """What a URL says of the client's certificate."""
        return f"ssl_keyfile={self.key}&ssl_certfile={self.certificate}"

    def client(self) -> redis.Redis:
        files = {"ssl_ca_certs": str(self.authority), "ssl_keyfile": str(self.key), "ssl_check_hostname": False}
        return redis.Redis(port=self.port, ssl=True, ssl_certfile=str(self.certificate), **files)  # type: ignore[arg-type]


class Sentinel(Redis):
    """One that watches a server; three are needed to agree."""

    def __init__(self, watched: int, **options: str) -> None:
        super().__init__(**options)
        self._watched = watched

    def create(self) -> None:
        super().create()
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.data}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._watched} 2",
            f"sentinel down-after-milliseconds {SERVICE} 1000",
            f"sentinel failover-timeout {SERVICE} 6000",
        ]
        self._file.write_text("\n".join(lines) + "\n")  # it writes into it what it finds out
        if self.user:
            shutil.chown(self._file, self.user.pw_uid, self.user.pw_gid)

    @property
    def _file(self) -> Path:
        return self.data / "sentinel.conf"

    def command(self) -> list[str]:
        return [str(self.program), str(self._file), "--sentinel"]


class Watched:
    """A server, a replica of it, and three Sentinels."""

    def __init__(self, stack: ExitStack) -> None:
        self.servers: list[Redis] = [_started(Redis(), stack) for _ in range(2)]
        first, second = self.servers
        with second.client() as client:
            client.replicaof("127.0.0.1", first.port)
        self.sentinels = [_started(Sentinel(first.port), stack) for _ in range(3)]
        self.url = f"sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/{SERVICE}"
        eventually(self._is_complete, message="the Sentinels do not know of each other, or of the replica")

    def _is_complete(self) -> bool:
        return all(
            (state := self._ask(one, "MASTER", SERVICE))["num-slaves"] == "1" and state["num-other-sentinels"] == "2"
            for one in self.sentinels
        )

    def _ask(self, sentinel: Redis, *words: str) -> dict[str, str]:
        with sentinel.client() as client:
            answer: Any = client.execute_command("SENTINEL " + words[0], *words[1:])
        if isinstance(answer, dict):
            return {_text(key): _text(value) for key, value in answer.items()}
        return {_text(answer[at]): _text(answer[at + 1]) for at in range(0, len(answer), 2)}

    def master(self) -> Redis:
        """Return the server that all Sentinels take for the one that is written to."""
        ports = {self._ask(one, "MASTER", SERVICE)["port"] for one in self.sentinels}
        [found] = [one for one in self.servers if ports == {str(one.port)}]
        return found

    def fail_over(self) -> None:
        """Kill the server that is written to, and wait until there is another one."""
        old = self.master()
        old.kill()
        [new] = [one for one in self.servers if one is not old]

        def has_taken_over() -> bool:
            with new.client() as client:
                return bool(client.info("replication")["role"] == "master")

        eventually(has_taken_over, timeout=30.0, message="no other server was chosen")


class Cluster:
    """Three servers that share the keys."""

    def __init__(self, stack: ExitStack) -> None:
        self.nodes: list[Redis] = []
        #: Where slots are that have been moved.
        self._moved: dict[int, int] = {}
        for _ in range(3):
            node = Redis(**{"cluster-enabled": "yes", "cluster-node-timeout": "2000"})
            while node.port > 55_000:  # they talk to each other ten thousand ports above
                node.port = free_port()
            self.nodes.append(_started(node, stack))
        bounds = [number * SLOTS // 3 for number in range(4)]
        for number, node in enumerate(self.nodes):
            with node.client() as opened:
                client: Any = opened
                client.execute_command("CLUSTER ADDSLOTS", *range(bounds[number], bounds[number + 1]))
                client.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[0].port)
        self.url = f"redis-cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"
        self.wait_until_complete()

    def _is_complete(self) -> bool:
        for node in self.nodes:
            with node.client() as client:
                info: Any = client.cluster("INFO")
                if info["cluster_state"] != "ok" or info["cluster_known_nodes"] != "3":
                    return False
        return True

    def wait_until_complete(self) -> None:
        """Return once all servers are there, and know each other."""
        eventually(self._is_complete, timeout=30.0, message="the cluster does not come together")

    def holder(self, key: str) -> Redis:
        """Return the server that has a key."""
        with self.nodes[0].client() as client:
            slot = int(client.execute_command("CLUSTER KEYSLOT", key))
        return self.nodes[self._moved.get(slot, slot * 3 // SLOTS)]

    def waiting(self) -> int:
        """Return how many connections wait for a key."""
        count = 0
        for node in self.nodes:
            with node.client() as client:
                count += sum("b" in one["flags"] for one in client.client_list())
        return count

    def move(self, key: str) -> None:
        """Move the slot of a key, with all in it, to another server, while it is in use."""
        with self.moving(key):
            pass

    @contextmanager
    def moving(self, key: str) -> Iterator[None]:
        """The same, and give the time in which it is on its way."""
        clients: list[Any] = [node.client() for node in self.nodes]
        try:
            slot = int(clients[0].execute_command("CLUSTER KEYSLOT", key))
            names = [_text(client.execute_command("CLUSTER MYID")) for client in clients]
            at = self._moved.get(slot, slot * 3 // SLOTS)
            to = (at + 1) % 3
            clients[to].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[at])
            clients[at].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[to])
            while keys := clients[at].execute_command("CLUSTER GETKEYSINSLOT", slot, 10):
                target = ("127.0.0.1", self.nodes[to].port, "", 0, 5000, "KEYS", *keys)
                clients[at].execute_command("MIGRATE", *target)
            yield
            for number in (to, at, 3 - to - at):
                clients[number].execute_command("CLUSTER SETSLOT", slot, "NODE", names[to])
            self._moved[slot] = to
        finally:
            for client in clients:
                client.close()


class Monitor:
    """Notes what arrives at servers; a script counts as one command."""

    def __init__(self, servers: Sequence[Redis]) -> None:
        self._servers = servers
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        #: Of each server its words, in order; the name of one of our scripts stands for its digest.
        self.heard: dict[int, list[list[str]]] = {server.port: [] for server in servers}

    def __enter__(self) -> Self:
        listening = threading.Barrier(len(self._servers) + 1)
        for server in self._servers:
            self._threads.append(threading.Thread(target=self._listen, args=(server, listening), daemon=True))
            self._threads[-1].start()
        listening.wait(timeout=30)
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def count(self, name: str) -> int:
        """Return how often a script, or a command, arrived."""
        return sum(words[0] == name for heard in self.heard.values() for words in heard)

    def _listen(self, server: Redis, listening: threading.Barrier) -> None:
        with server.client() as client, client.monitor() as monitor:
            listening.wait(timeout=30)
            while not self._ended.is_set():
                if not monitor.connection.can_read(0.05):
                    continue
                entry = monitor.next_command()
                if entry["client_type"] != "lua":
                    words = entry["command"].split()
                    script = SCRIPTS.get(words[1]) if words[0].upper() in ("EVALSHA", "EVAL") else None
                    self.heard[server.port].append([script or words[0].upper(), *words[1:]])


@contextmanager
def watched() -> Iterator[Watched]:
    """Give a server that Sentinels watch. Raises ``ServerMissing``."""
    with ExitStack() as stack:
        yield Watched(stack)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Give a cluster. Raises ``ServerMissing``."""
    with ExitStack() as stack:
        yield Cluster(stack)


@contextmanager
def encrypted(*names: str) -> Iterator[EncryptedRedis]:
    """Give a server that is reached by TLS, with a certificate for these names, else for the one it has. Raises
    ``ServerMissing`` if the program was built without it."""
    with ExitStack() as stack:
        yield _started(EncryptedRedis(*names), stack)


def _started(server: Any, stack: ExitStack) -> Any:
    stack.callback(server.close)
    try:
        server.start()
    except Exception as error:
        if "tls" in str(error).lower() and not isinstance(error, RedisError):
            raise ServerMissing(f"{server.program} speaks no TLS") from error
        raise
    return server


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
