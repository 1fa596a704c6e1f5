"""What a worker tells of its health: real processes, a real port, a real datagram socket."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.integration.jobs import block_interpreter, wait_at_gate
from tests.integration.site import ROOT, SHORT_LEASE, Site
from tests.servers import free_port

SQLITE = pytest.mark.databases("sqlite")
#: Seconds; far more than anything here takes.
LONG = 60.0


def page(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """Return the status and the text of a page; 0 if nobody serves it."""
    with closing(HTTPConnection(host, port, timeout=LONG)) as connection:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
        except OSError as error:
            return 0, str(error)
        return answer.status, answer.read().decode().strip()


def ready(port: int) -> bool:
    return page(port, "/readyz") == (200, "ok")


def file_problem(path: Path, max_age: float = 30.0) -> int:
    """Return the exit code of a probe that looks at the file."""
    command = [sys.executable, "-m", "django_tasks.health", str(path), "--max-age", str(max_age)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=LONG, check=False).returncode


# The probe port ------------------------------------------------------------------------------------------------------


@SQLITE
def test_a_worker_tells_probes_that_it_lives_and_is_ready(site: Site) -> None:
    port = free_port()
    worker = site.start("--probe-port", str(port))
    assert eventually(lambda: ready(port), timeout=LONG)
    assert page(port, "/livez") == (200, "ok")
    assert page(port, "/livez?verbose") == (200, "ok")
    assert page(port, "/")[0] == 404
    if socket.has_dualstack_ipv6():
        assert page(port, "/livez", "::1") == (200, "ok")
    times = []
    for _ in range(50):
        began = time.monotonic()
        page(port, "/readyz")
        times.append(time.monotonic() - began)
    assert sorted(times)[25] < 0.02, times
    assert worker.stop() == 0
    assert page(port, "/livez")[0] == 0


@SQLITE
def test_a_client_that_says_nothing_keeps_no_other_waiting(site: Site) -> None:
    port = free_port()
    site.start("--probe-port", f"127.0.0.1:{port}")
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)) as rude:
        rude.sendall(b"nonsense\r\n\r\n")
        assert eventually(lambda: ready(port), timeout=LONG)


@SQLITE
def test_a_busy_worker_lives_and_is_ready_and_one_that_drains_is_not_ready(site: Site) -> None:
    port = free_port()
    worker = site.start("--probe-port", str(port))
    running = [wait_at_gate.delay(str(site.gates)) for _ in range(2)]
    starts = [site.wait_for_start(result) for result in running]
    assert ready(port)
    worker.send(signal.SIGTERM)
    eventually(lambda: page(port, "/readyz") == (503, "ending"), timeout=LONG)
    assert page(port, "/livez") == (200, "ok")
    for start in starts:
        site.open_gate(start)
    assert worker.wait() == 0


@SQLITE
def test_children_do_not_keep_the_port_of_a_supervisor_that_died(site: Site) -> None:
    port = free_port()
    worker = site.start("--probe-port", str(port))
    assert eventually(lambda: ready(port), timeout=LONG)
    result = wait_at_gate.delay(str(site.gates))
    site.wait_for_start(result)
    worker.kill()
    with closing(socket.create_server(("127.0.0.1", port))):
        pass


@SQLITE
def test_a_port_that_is_taken_is_told_before_anything_starts(site: Site) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        worker = site.launch("--probe-port", f"127.0.0.1:{port}")
        assert worker.wait() == 1
    assert f"--probe-port {port}: " in worker.said()
    assert "Traceback" not in worker.said()


@pytest.mark.databases("postgresql", private=True)
def test_a_worker_without_its_database_lives_and_is_not_ready(site: Site) -> None:
    port = free_port()
    server = site.database.server
    assert server is not None
    worker = site.start("--probe-port", str(port), **SHORT_LEASE)
    assert eventually(lambda: ready(port), timeout=LONG)
    server.kill()
    eventually(lambda: page(port, "/readyz")[0] == 503, timeout=LONG)
    assert page(port, "/livez") == (200, "ok")
    other = free_port()
    site.launch("--probe-port", str(other), **SHORT_LEASE)
    eventually(lambda: page(other, "/livez") == (200, "ok"), timeout=LONG)
    assert page(other, "/readyz") == (503, "starting: the database was not reached yet")
    server.start()
    eventually(lambda: ready(port) and ready(other), timeout=LONG)
    assert worker.process.poll() is None


# The file ------------------------------------------------------------------------------------------------------------


@SQLITE
def test_the_health_file_is_touched_while_the_loops_turn(site: Site) -> None:
    file = site.directory / "health"
    worker = site.start("--health-file", str(file), concurrency=1)
    running = wait_at_gate.delay(str(site.gates))
    site.wait_for_start(running)
    before = file.stat().st_mtime
    eventually(lambda: file.stat().st_mtime > before, timeout=LONG)
    assert file_problem(file) == 0
    worker.freeze()
    stopped_at = file.stat().st_mtime
    eventually(lambda: file_problem(file, 1.5) == 1, timeout=LONG)
    assert file.stat().st_mtime == stopped_at
    worker.thaw()
    eventually(lambda: file_problem(file, 1.5) == 0, timeout=LONG)
    site.open_gate(site.wait_for_start(running))
    assert worker.stop() == 0
    assert not file.exists()
    assert file_problem(file) == 1


@SQLITE
def test_the_file_of_a_worker_that_was_killed_grows_old(site: Site) -> None:
    file = site.directory / "health"
    worker = site.start("--health-file", str(site.directory / "%n"), "-n", "health@x", concurrency=1)
    eventually(file.exists, timeout=LONG)
    worker.kill_tree()
    eventually(lambda: file_problem(file, 0.5) == 1, timeout=LONG)


@SQLITE
def test_a_worker_of_one_process_that_cannot_turn_its_loop_does_not_touch_the_file(site: Site) -> None:
    """Stalled differs from busy: a task that waits lets the steward's thread run, one that blocks Python does not."""
    file = site.directory / "health"
    site.start("--pool", "solo", "--health-file", str(file))
    busy = wait_at_gate.delay(str(site.gates))
    start = site.wait_for_start(busy)
    before = file.stat().st_mtime
    eventually(lambda: file.stat().st_mtime > before, timeout=LONG)
    site.open_gate(start)
    result = block_interpreter.delay(4.0)
    begun = site.wait_for_start(result)
    eventually(lambda: file_problem(file, 2.5) == 1, timeout=LONG)
    assert result.get(timeout=LONG) == begun.attempt
    eventually(lambda: file_problem(file, 1.5) == 0, timeout=LONG)


def test_the_probe_of_a_file_loads_neither_django_nor_the_site(tmp_path: Path) -> None:
    file = tmp_path / "health"
    file.touch()
    code = "import sys, django_tasks.health as h; print(h.main(sys.argv[1:]), 'django' in sys.modules)"
    environ = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    told = subprocess.run(
        [sys.executable, "-c", code, str(file)], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    assert told.stdout == "0 False\n"


@pytest.mark.parametrize("words", [["--max-age", "0"], ["--max-age", "x"], []])
def test_wrong_usage_of_the_probe_ends_with_2(tmp_path: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "django_tasks.health", *([str(tmp_path)] if words else []), *words]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 2


# systemd -------------------------------------------------------------------------------------------------------------


class Systemd:
    """The socket that systemd would read."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(0.1)
        self.heard: list[tuple[float, str]] = []

    def hear(self) -> list[str]:
        """Return all messages so far."""
        with suppress(TimeoutError):
            while True:
                self.heard.append((time.monotonic(), self.socket.recv(4096).decode()))
        return [message for _, message in self.heard]

    def wait_for(self, message: str, count: int = 1) -> None:
        eventually(lambda: self.hear().count(message) >= count, timeout=LONG, message=f"systemd did not hear {message}")


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    manager = Systemd(str(tmp_path / "notify") if request.param == "path" else f"@django-tasks-{os.getpid()}")
    yield manager
    manager.socket.close()


@SQLITE
def test_systemd_hears_when_the_worker_is_ready_lives_and_stops(site: Site, systemd: Systemd) -> None:
    environ = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "1000000"}
    worker = site.launch(concurrency=1, environ=environ)
    systemd.wait_for("READY=1")
    systemd.wait_for("WATCHDOG=1", 4)
    times = [at for at, message in systemd.heard if message == "WATCHDOG=1"]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    # Half of the time that systemd waits; on a busy machine one may be late.
    assert sorted(pauses)[len(pauses) // 2] < 1.0, pauses
    assert worker.stop() == 0
    systemd.wait_for("STOPPING=1")
    order = [message for message in systemd.hear() if message != "WATCHDOG=1"]
    assert order == ["READY=1", "STOPPING=1"]


@SQLITE
def test_a_frozen_worker_says_nothing_to_systemd(site: Site, systemd: Systemd) -> None:
    worker = site.launch(concurrency=1, environ={"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "600000"})
    systemd.wait_for("WATCHDOG=1")
    worker.freeze()
    systemd.hear()
    before = len(systemd.heard)
    frozen = time.monotonic()
    eventually(lambda: systemd.hear() and time.monotonic() - frozen > 2.0, timeout=LONG)
    assert len(systemd.heard) == before
    worker.thaw()
    systemd.wait_for("WATCHDOG=1", systemd.hear().count("WATCHDOG=1") + 1)


@pytest.mark.databases("postgresql", private=True)
def test_systemd_is_asked_for_more_time_while_the_database_is_away(site: Site, tmp_path: Path) -> None:
    server = site.database.server
    assert server is not None
    server.kill()
    systemd = Systemd(str(tmp_path / "notify"))
    worker = site.launch(concurrency=1, environ={"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "60000000"})
    systemd.wait_for("EXTEND_TIMEOUT_USEC=30000000")
    assert "READY=1" not in systemd.hear()
    server.start()
    systemd.wait_for("READY=1")
    assert worker.stop() == 0
    systemd.socket.close()


def units() -> list[tuple[str, str]]:
    """Return the unit files on the page about deployment, by name."""
    text = (ROOT / "docs" / "how-to" / "deploy.md").read_text()
    found = re.findall(r"```ini\n# (/etc/systemd/\S+)\n(.*?)```", text, re.DOTALL)
    return [(Path(name).name, unit) for name, unit in found]


def test_the_unit_files_in_the_documentation_are_right(tmp_path: Path) -> None:
    found = units()
    assert found
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not here")
    here = {"/srv/mysite/.venv/bin/python": sys.executable, "/srv/mysite": str(tmp_path), "User=mysite\n": ""}
    for name, text in found:
        for old, new in here.items():
            text = text.replace(old, new)
        unit = tmp_path / name
        unit.write_text(text)
        done = subprocess.run([verify, "verify", str(unit)], capture_output=True, text=True, check=False)
        complaints = [line for line in done.stderr.splitlines() if name in line]
        assert (done.returncode, complaints) == (0, []), done.stderr
