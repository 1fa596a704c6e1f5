"""Two pages for probes, served from a thread: ``/livez`` and ``/readyz`` answer 200, or 503 and why."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Seconds that a client may take to ask.
PATIENCE = 2.0


class Probe:
    """A small web server. It tells nothing but the health of this worker."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], str]]) -> None:
        """Begin to serve; port 0 takes a free one. Raises ``OSError`` when it is taken, or not allowed."""
        self._server = _Server(host, port, pages)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 60.0}, name="probe", daemon=True
        )
        self._thread.start()

    def leave(self) -> None:
        """In a child after the fork: give the port up, or it would outlive the parent."""
        self._server.socket.close()

    def close(self) -> None:
        """Serve no more. The thread ends with the process."""
        self._server.socket.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], str]]) -> None:
        self.pages = pages
        every = not host and socket.has_dualstack_ipv6()
        if every or ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler, bind_and_activate=False)
        try:
            if every:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self.server_bind()
            self.server_activate()
        except BaseException:
            self.server_close()
            raise

    def server_bind(self) -> None:
        # As HTTPServer, without its look-up of the host's name, which may take seconds.
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE
    server: _Server
    server_version = "django-workbeat"
    sys_version = ""

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            self._send(404, f"Here are only {' and '.join(self.server.pages)}.")
        else:
            problem = page()
            self._send(503 if problem else 200, problem or "ok")

    do_HEAD = do_GET

    def _send(self, status: int, text: str) -> None:
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds."""
