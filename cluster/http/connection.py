"""One connection: what it waits for, since when, and its end when that takes too long.

Depends on aiohttp's protocol class, whose documented methods it extends.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from aiohttp import web

from mesaform.http.port import Limits


class Owner(Protocol):
    """What a connection needs of its server."""

    @property
    def limits(self) -> Limits:
        """The port's limits."""
        ...

    def refusal(self, status: int, message: str) -> bytes:
        """A whole answer in the port's format that ends the connection."""
        ...

    def protocol_error(self, error: BaseException | None, message: str) -> web.Response:
        """The answer to what is not HTTP."""
        ...

    def unhandled(self, error: BaseException | None) -> None:
        """Log and count an exception outside of every handler."""
        ...


class Connection(web.RequestHandler):
    """aiohttp's connection with a record of its state.

    Attributes:
        peer: the peer's address.
        since: when the present state began, on the loop's clock.
        is_busy: a request is being handled.
        is_receiving: the handler waits for the body.
        is_stream: the answer goes on until one side ends it; no time-out applies.
        is_established: it is past the handshake of TLS, where the port has one.
        handshake: the handshake that is under way; it has a time-out of its own.

    """

    __slots__ = (
        "_blocked_since",
        "_has_partial_request",
        "_owner",
        "handshake",
        "is_busy",
        "is_established",
        "is_receiving",
        "is_stream",
        "peer",
        "since",
    )

    def __init__(self, owner: Owner, manager: Any, **arguments: Any) -> None:
        super().__init__(manager, **arguments)
        self._owner = owner
        self._blocked_since: float | None = None
        self._has_partial_request = False
        self.peer = ""
        self.since = self._loop.time()
        self.is_busy = False
        self.is_receiving = False
        self.is_stream = False
        self.is_established = False
        self.handshake: asyncio.Task[None] | None = None

    @property
    def is_evictable(self) -> bool:
        """Whether the connection waits for its peer rather than the peer for an answer."""
        is_waiting = not self.is_busy or self.is_receiving
        return is_waiting and not self.is_stream and self._blocked_since is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the peer's address before the server decides whether it may connect."""
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if isinstance(name, tuple) else "local"
        self.is_established = True
        self.since = self._loop.time()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Note the first byte of a request."""
        if data and not self.is_busy and not self._has_partial_request:
            self._has_partial_request = True
            self.since = self._loop.time()
        super().data_received(data)

    def pause_writing(self) -> None:
        """Note since when the peer does not read."""
        self._blocked_since = self._loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._blocked_since = None
        super().resume_writing()

    def begin_request(self) -> None:
        """The headers of a request are complete."""
        self.is_busy = True
        self._has_partial_request = False
        self.since = self._loop.time()

    def end_request(self) -> None:
        """The handler returned; its answer may still be on its way."""
        self.is_busy = self.is_receiving = self.is_stream = False
        self.since = self._loop.time()

    def end_if_overdue(self, now: float) -> None:
        """Close the connection if its peer takes too long."""
        if self.is_stream:
            return
        if self._blocked_since is not None:
            self._end_if_blocked(now - self._blocked_since)
        elif not self.is_busy:
            self._end_if_waiting(now - self.since)

    def _end_if_blocked(self, blocked_s: float) -> None:
        if blocked_s > self._owner.limits.blocked_s and self.transport is not None:
            self.transport.abort()

    def _end_if_waiting(self, waiting_s: float) -> None:
        limits = self._owner.limits
        if not self._has_partial_request and waiting_s > limits.idle_s:
            self.force_close()
        elif self._has_partial_request and waiting_s > limits.header_s:
            self.refuse(408, "The request was not sent in time")

    def refuse(self, status: int, message: str) -> None:
        """Answer without a request, and close."""
        if self.transport is not None:
            self.transport.write(self._owner.refusal(status, message))
        self.force_close()

    def force_close(self) -> None:
        """Close the connection, also in the middle of its handshake."""
        if self.handshake is not None:
            self.handshake.cancel()
        super().force_close()

    def log_exception(self, *_arguments: Any, **fields: Any) -> None:
        """Take what aiohttp would log: an answer that could not be written."""
        self._owner.unhandled(fields.get("exc_info"))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002  # aiohttp's signature
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP in the port's format. It is the caller's fault: no log entry."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        response = self._owner.protocol_error(exc, message or "")
        response.force_close()
        return response
