"""The two shows: the everyday jobs once, from start to end; or a shop that stays open. Needs Django to be set up."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from pathlib import Path

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connections

from shop import jobs
from shop.models import Product, Report
from showcase.errors import ShowcaseError
from showcase.lines import Line, check_success, watch
from showcase.processes import ManagedProcess, free_port, wait_for_web
from showcase.progress import display
from showcase.summary import check_orders, print_mails, print_reports, print_task_results, print_thumbnails

#: The port of the web server, when it is free.
PORT = 8000
#: What the worker takes, in this order: a flood in the last one is in nobody's way.
QUEUES = ("default", "images", "webhooks", "load")
#: Seconds between two looks at whether web server and worker are still there.
CHECK_EVERY = 0.5


def run_all(directory: Path, *, timeout: float) -> None:
    """Open the shop, run its everyday jobs once, tell what came of it, close the shop.

    Raises ``ShowcaseError`` when anything is not as it should be, or the jobs take more than ``timeout`` seconds.
    """
    _say("Opening the shop")
    _open_shop()
    _say("Starting a worker")
    with _worker(directory) as worker:
        try:
            lines = _send_jobs()
            _say(f"Sent {sum(len(line.results) for line in lines)} tasks; one order exceeded the stock and sent none")
            with display() as shown:
                watch(lines, shown, worker=worker, timeout=timeout)
            check_success(lines)
            _tell(lines)
            _say("Stopping the worker")
            worker.stop()
        except ShowcaseError:
            _print_log(worker)
            raise
        finally:
            connections.close_all()


def serve(directory: Path) -> None:
    """Open the shop and keep web server and worker, with a beat, running until Ctrl-C.

    Raises ``ShowcaseError`` when one of them ends by itself.
    """
    _open_shop()
    password = secrets.token_urlsafe(12)
    get_user_model().objects.create_superuser("admin", "admin@example.com", password)
    connections.close_all()
    port = free_port(PORT)
    address = f"http://127.0.0.1:{port}/"
    os.environ["CORNER_SHOP_URL"] = address  # where the worker finds the stand-in for the partner
    with _worker(directory, "--beat") as worker, _web_server(directory, port) as web_server:
        try:
            wait_for_web(web_server, port)
            print(f"Shop:     {address}")
            print(f"Admin:    {address}admin/")
            print("User:     admin")
            print(f"Password: {password}")
            print(f"Logs:     {worker.log}, {web_server.log}")
            print("Web server and worker, with a beat, are running; Ctrl-C stops them.", flush=True)
            while True:
                worker.check_running()
                web_server.check_running()
                time.sleep(CHECK_EVERY)
        except ShowcaseError:
            _print_log(worker)
            _print_log(web_server)
            raise


def _open_shop() -> None:
    call_command("migrate", verbosity=0)
    Product.objects.stock_shelves()


def _worker(directory: Path, *options: str) -> ManagedProcess:
    return ManagedProcess("worker", "runworker", "-Q", *QUEUES, *options, log=directory / "worker.log")


def _web_server(directory: Path, port: int) -> ManagedProcess:
    # The development server ends with exit code 0 on Ctrl-C, and on no other signal.
    return ManagedProcess(
        "web server",
        *("runserver", "--noreload", f"127.0.0.1:{port}"),
        log=directory / "web.log",
        stop_signal=signal.SIGINT,
    )


def _send_jobs() -> list[Line]:
    lines = [
        Line("Thumbnails", jobs.make_thumbnails()),
        Line("Sales report", jobs.write_report(), steps=Report.objects.latest("pk").rows),
        Line("Order mails", jobs.place_orders()),
        Line("Review mail", jobs.ask_for_review()),
    ]
    if jobs.order_too_much():
        raise ShowcaseError("An order of more than there is was accepted.")
    return lines


def _tell(lines: list[Line]) -> None:
    _say("Produced")
    print_thumbnails()
    print_reports()
    confirmations, reviews = (line.results for line in lines[2:])
    print_mails(result.get(timeout=5) for result in (*confirmations, *reviews))
    check_orders()
    _say("Rows of TaskResult")
    print_task_results(lines)


def _say(text: str) -> None:
    print(f"── {text}", flush=True)


def _print_log(process: ManagedProcess) -> None:
    print(f"The last lines of the log of the {process.name}:\n{process.log_tail()}", file=sys.stderr, flush=True)
