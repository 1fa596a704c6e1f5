"""The demo as its user starts it: real processes, a real database file."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, str(PROJECT / "demo.py")]


def directories() -> set[Path]:
    return set((PROJECT / "data").glob("demo-*"))


def test_the_demo_runs_to_its_end_and_leaves_nothing_behind() -> None:
    before = directories()
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603 - our own file
    assert done.returncode == 0, done.stdout + done.stderr
    assert "13 mails; the server hung up" in done.stdout
    assert len(re.findall(r"shop\.tasks\.\w+ .* SUCCESS ", done.stdout)) == 38
    assert directories() == before


def test_a_demo_that_takes_too_long_tells_so() -> None:
    command = [*DEMO, "--timeout", "0.01"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own file
    assert done.returncode == 1
    assert "The tasks are not done after 0.01 s" in done.stderr
    assert "The last lines of the log of the worker" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that a process can send to stop another gently")
@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM])
def test_the_shop_stays_open_until_it_is_told_to_close(stop_signal: signal.Signals) -> None:
    command = [*DEMO, "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shop:  # noqa: S603 - our own file
        assert shop.stdout is not None
        told: dict[str, str] = {}
        for line in shop.stdout:
            name, _, value = line.partition(":")
            told[name] = value.strip()
            if "Ctrl-C" in line:
                break
        port = int(told["Shop"].rsplit(":", 1)[1].strip("/"))
        assert get_status(port) == 200
        assert len(told["Password"]) >= 16
        shop.send_signal(stop_signal)
        assert shop.wait(30) == 0
    with pytest.raises(ConnectionRefusedError):
        get_status(port)


def get_status(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()
