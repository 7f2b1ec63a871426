"""The listener of a port with TLS: a connection counts from its accept on, before its handshake.

asyncio's own server makes a connection once its handshake is complete, so that half-open ones would
count in no limit. Depends on aiohttp's sites and `connection`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from functools import partial
from typing import Protocol, cast

import structlog
from aiohttp import web

from mesaform.http.connection import Connection

log = structlog.get_logger("mesaform.http")

ACCEPTS_AT_ONCE = 64
"""Accepts before other events of the loop have their turn."""
RETRY_S = 0.2
"""Pause after an accept for which the process or the system lacks files or memory."""


class Connections(Protocol):
    """The factory of a server's connections, which counts them."""

    def __call__(self) -> Connection:
        """A connection that is not made yet."""
        ...

    def begin_handshake(self, connection: Connection, peer: str) -> None:
        """Count a connection that was accepted. It or another one may be closed for it."""
        ...

    def end_handshake(self, connection: Connection) -> None:
        """Forget a connection unless it was made. Idempotent."""
        ...


class TlsListener:
    """Accepts connections of a listening socket, and has each one perform its handshake.

    Args:
        listening: a socket that listens. `close` closes it.
        connections: makes and counts connections.
        context: has the server's certificate.
        handshake_s: the time for a handshake.

    """

    def __init__(
        self,
        listening: socket.socket,
        connections: Connections,
        context: ssl.SSLContext,
        handshake_s: float,
    ) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._connections = connections
        self._context = context
        self._handshake_s = handshake_s
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._resume()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket; empty after `close`."""
        return () if self._listening.fileno() < 0 else (self._listening,)

    def close(self) -> None:
        """Stop listening and end handshakes. Connections that are made go on. Idempotent."""
        if self.sockets:
            self._loop.remove_reader(self._listening)
            self._listening.close()
        for task in self._handshakes:
            task.cancel()

    def _resume(self) -> None:
        if self.sockets:
            self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("cannot_accept", error=str(error))
                self._loop.remove_reader(self._listening)
                self._loop.call_later(RETRY_S, self._resume)
                return
            self._begin_handshake(accepted, str(address[0]) if address else "local")

    def _begin_handshake(self, accepted: socket.socket, peer: str) -> None:
        connection = self._connections()
        task = self._loop.create_task(self._handshake(accepted, connection), name="handshake")
        self._handshakes.add(task)
        connection.handshake = task
        task.add_done_callback(partial(self._end_handshake, accepted, connection))
        self._connections.begin_handshake(connection, peer)

    async def _handshake(self, accepted: socket.socket, connection: Connection) -> None:
        with contextlib.suppress(OSError):  # of ssl as well: the caller's fault
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_s,
            )

    def _end_handshake(
        self, accepted: socket.socket, connection: Connection, task: asyncio.Task[None]
    ) -> None:
        self._handshakes.discard(task)
        connection.handshake = None
        self._connections.end_handshake(connection)
        if not connection.is_established:
            accepted.close()  # a task that was cancelled before it began has not closed it


class TlsSite(web.BaseSite):
    """aiohttp's site with a `TlsListener`.

    Args:
        runner: the server's.
        listening: a bound socket.
        connections: of the runner's server.
        tls: has the server's certificate.
        handshake_s: the time for a handshake.

    """

    __slots__ = ("_connections", "_handshake_s", "_listening", "_tls")

    def __init__(
        self,
        runner: web.BaseRunner,
        listening: socket.socket,
        connections: Connections,
        tls: ssl.SSLContext,
        handshake_s: float,
    ) -> None:
        super().__init__(runner, ssl_context=tls)
        self._listening = listening
        self._connections = connections
        self._tls = tls
        self._handshake_s = handshake_s

    @property
    def name(self) -> str:
        """For error messages of aiohttp."""
        return f"https {self._listening.getsockname()}"

    async def start(self) -> None:
        """Listen."""
        await super().start()
        listener = TlsListener(self._listening, self._connections, self._tls, self._handshake_s)
        self._server = cast("asyncio.AbstractServer", listener)  # aiohttp reads and closes it only
