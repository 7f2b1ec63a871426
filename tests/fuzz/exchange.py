"""One exchange with a server over a plain socket: any bytes out, the status of the answer back."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote_from_bytes

TIMEOUT_S = 60.0
"""An answer that takes longer counts as none. The server's own limits are below this."""
INCOMPLETE_S = 0.25
"""How long an answer to an incomplete request is awaited: the server may wait for the rest."""
STREAM_MARK = b"transfer-encoding: chunked"
"""Only answers that may go on for ever are sent in chunks."""


@dataclass(frozen=True)
class Request:
    """An HTTP request. `path` and header values are bytes as they go over the wire."""

    method: str
    path: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    body: bytes = b""

    def encoded(self, host: str) -> bytes:
        """The bytes on the wire; Host and Content-Length are added where they are missing."""
        names = {name.lower() for name, _ in self.headers}
        headers = list(self.headers)
        if "host" not in names:
            headers.insert(0, ("Host", host.encode()))
        if "content-length" not in names and (self.body or self.method in {"POST", "PUT", "PATCH"}):
            headers.append(("Content-Length", str(len(self.body)).encode()))
        headers.append(("Connection", b"close"))
        lines = [f"{self.method} ".encode() + self.path + b" HTTP/1.1"]
        lines += [name.encode() + b": " + value for name, value in headers]
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


@dataclass(frozen=True)
class Answer:
    """What came back. `status` is 0 for a connection that was closed without an answer."""

    status: int
    head: bytes = b""
    body: bytes = b""
    seconds: float = 0.0

    @property
    def group(self) -> str:
        """The class of the status, such as `4xx`; `closed` without an answer."""
        return f"{self.status // 100}xx" if self.status else "closed"


class NoAnswer(Exception):
    """The server neither answered nor closed the connection in time, or refuses connections."""


@dataclass(frozen=True)
class Exchange:
    """Sends bytes to one address.

    Attributes:
        address: the server.
        timeout_s: the time in which it must answer.

    """

    address: tuple[str, int]
    timeout_s: float = TIMEOUT_S
    host: str = field(init=False, default="")

    def request(self, request: Request) -> Answer:
        """Send a request, and read the answer's head and the beginning of its body.

        Raises:
            NoAnswer: there is none in time.

        """
        names = {name.lower() for name, _ in request.headers}
        # A server waits for a body whose framing promises more than was sent.
        is_complete = not names & {"transfer-encoding", "content-length", "expect"}
        return self.raw(
            [request.encoded(f"{self.address[0]}:{self.address[1]}")], is_complete=is_complete
        )

    def raw(
        self, pieces: Sequence[bytes], *, is_complete: bool = True, half_close: bool = False
    ) -> Answer:
        """Send pieces one after the other, each in a packet of its own.

        Args:
            pieces: the bytes to send.
            is_complete: whether they are a whole request, which must be answered.
            half_close: whether to end the sending side before the answer is read.

        Raises:
            NoAnswer: the server does not accept, or does not answer a whole request in time.

        """
        began = time.monotonic()
        try:
            with socket.create_connection(self.address, timeout=self.timeout_s) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _send(connection, pieces, half_close=half_close)
                connection.settimeout(self.timeout_s if is_complete else INCOMPLETE_S)
                received = _received(connection)
        except (ConnectionResetError, BrokenPipeError):
            received = b""
        except (TimeoutError, ConnectionRefusedError) as error:
            if is_complete or isinstance(error, ConnectionRefusedError):
                raise NoAnswer(f"{self.address}: {error}") from error
            return Answer(0)
        return _parsed(received, time.monotonic() - began)


def _send(connection: socket.socket, pieces: Sequence[bytes], *, half_close: bool) -> None:
    """Send as much as the server reads: it may answer and close before it has read everything."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        for piece in pieces:
            connection.sendall(piece)
    if half_close:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)


def _received(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while not _is_enough(received) and (data := connection.recv(65536)):
            received += data
    return received


def _is_enough(received: bytes) -> bool:
    """Whether the rest does not matter: it is a stream, or long."""
    head, end, body = received.partition(b"\r\n\r\n")
    return bool(end) and (STREAM_MARK in head.lower() or len(body) > 2_000_000)


def _parsed(received: bytes, seconds: float) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return Answer(0, head, body, seconds)
    return Answer(int(words[1]), head, body, seconds)


def quoted(text: str) -> bytes:
    """A text as a part of a path, percent-encoded where it must be."""
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe="").encode()
