"""An HTTPS server on this machine that keeps what it gets and answers as told: the other side of a notification."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme


@dataclass(frozen=True)
class Received:
    """A request as it came in; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """How to answer one request; ``seconds`` is how long to think first."""

    status: int = 200
    body: bytes = b"ok"
    headers: dict[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0
    hang_up: bool = False
    seconds_a_byte: float = 0
    """Between the bytes of the body, each of which comes in time."""


@dataclass
class Receiver:
    """``replies`` are used up from the front; everything behind them is answered with 200."""

    url: str
    tls: ssl.SSLContext
    received: list[Received] = field(default_factory=list[Received])
    replies: list[Reply] = field(default_factory=list[Reply])


@contextmanager
def receiving() -> Generator[Receiver]:
    """A server of its own, under the name ``localhost`` and the address 127.0.0.1; ``tls`` trusts it."""
    authority = trustme.CA()
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(serving)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append(Received("POST", self.path, headers, body))
            reply = receiver.replies.pop(0) if receiver.replies else Reply()
            time.sleep(reply.seconds)
            self.close_connection = True
            if reply.hang_up:
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if not reply.seconds_a_byte:
                self.wfile.write(reply.body)
                return
            for number in range(len(reply.body)):
                self.wfile.write(reply.body[number : number + 1])
                time.sleep(reply.seconds_a_byte)

        def log_message(self, format: str, *args: object) -> None:
            """Tests look at what was received."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that does not trust this server, or has waited long enough, hangs up: that is being tested."""

    server = Server(("127.0.0.1", 0), Handler)
    # The handshake belongs to the thread of its connection: one that never comes must not keep others out.
    server.socket = serving.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    receiver = Receiver(f"https://localhost:{server.server_address[1]}", trust)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="receiver")
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
