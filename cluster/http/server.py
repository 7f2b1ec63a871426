"""The server of one port: listening, the checks of each request, and connections in bounds.

Depends on aiohttp and structlog.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from mesaform.common.errors import Busy
from mesaform.http.boundary import Boundary, without_server_header
from mesaform.http.connection import Connection
from mesaform.http.errors import phrase
from mesaform.http.hosts import AcceptedHosts
from mesaform.http.port import HttpPort, Limits
from mesaform.http.tls import ServerTls
from mesaform.http.tls_listener import TlsSite
from mesaform.http.unhandled import UNHANDLED

NO_TIMEOUT_S = 10**6
"""aiohttp's own time-out of idle connections; `Connection.end_if_overdue` replaces it."""
SWEEP_S = 1.0
BACKLOG = 1024


class _Protocols(web.Server):
    """aiohttp's factory of connections, with limits by peer."""

    def __init__(self, served: web.Server, owner: HttpServer, boundary: Boundary) -> None:
        super().__init__(
            boundary.wrap(served.request_handler),
            request_factory=served.request_factory,
            handler_cancellation=owner.port.cancels_handlers,
        )
        self._owner = owner
        self._peers: dict[str, dict[Connection, None]] = {}
        self.count = 0
        """How many connections are open, handshakes included."""
        limits = owner.limits
        self._max_connections = min(limits.connections, _open_files() // 2)
        self._max_of_peer = min(limits.peer_connections, self._max_connections * 3 // 4)

    def __call__(self) -> Connection:
        limits = self._owner.limits
        return Connection(
            self._owner,
            self,
            loop=self._loop,
            access_log=None,
            keepalive_timeout=NO_TIMEOUT_S,
            max_line_size=limits.line_bytes,
            max_field_size=limits.field_bytes,
            max_headers=limits.header_count,
            lingering_time=limits.stall_s,
            auto_decompress=False,
        )

    def begin_handshake(self, connection: Connection, peer: str) -> None:
        """Count a connection from its accept on."""
        connection.peer = peer
        self._admit(connection)

    def end_handshake(self, connection: Connection) -> None:
        """Forget a connection whose handshake was not completed."""
        if not connection.is_established:
            self._forget(connection)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if isinstance(handler, Connection) and handler.handshake is None:
            self._admit(handler)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        if isinstance(handler, Connection):
            self._forget(handler)

    def _admit(self, connection: Connection) -> None:
        of_peer = self._peers.setdefault(connection.peer, {})
        self.count += connection not in of_peer
        of_peer[connection] = None
        if len(of_peer) > self._max_of_peer:
            self._make_place(connection, list(of_peer))
        elif self.count > self._max_connections:
            self._make_place(connection, [item for peer in self._peers.values() for item in peer])

    def _forget(self, connection: Connection) -> None:
        of_peer = self._peers.get(connection.peer, {})
        self.count -= connection in of_peer
        of_peer.pop(connection, None)
        if not of_peer:
            self._peers.pop(connection.peer, None)

    def _make_place(self, newest: Connection, connections: list[Connection]) -> None:
        """Close the connection that has waited longest for its peer, or else the newest.

        It no longer counts at once: further ones may be accepted before it is closed.
        """
        waiting = [item for item in connections if item.is_evictable and item is not newest]
        if waiting:
            oldest = min(waiting, key=lambda item: item.since)
            self._forget(oldest)
            oldest.force_close()
        else:
            newest.refuse(503, "Too many connections of this address")

    def end_overdue(self) -> None:
        """Close the connections whose peers take too long."""
        now = self._loop.time()
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.end_if_overdue(now)


def _bound(address: str, number: int) -> socket.socket:
    """A socket that is bound to an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, number), family=family, backlog=BACKLOG)


def _open_files() -> int:
    """How many files the process may have open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit if limit > 0 else 2**20


class _Runner(web.AppRunner):
    """aiohttp's runner with the own factory of connections."""

    def __init__(self, app: web.Application, owner: HttpServer, shutdown_s: float) -> None:
        super().__init__(
            app,
            access_log=None,
            shutdown_timeout=shutdown_s,
        )
        self._owner = owner
        self.protocols: _Protocols | None = None

    async def _make_server(self) -> web.Server:
        served = await super()._make_server()
        self.protocols = _Protocols(served, self._owner, self._owner.boundary)
        return self.protocols


class HttpServer:
    """An application behind the boundary.

    Args:
        app: the routes. Handlers read bodies with `read_body`, `read_json` or `decode_json`.
        port: what is particular to the port.
        hosts: under which names it may be called, besides loopback and its own address.
        shutdown_s: seconds for requests under way when it stops.

    """

    def __init__(
        self,
        app: web.Application,
        port: HttpPort,
        hosts: AcceptedHosts | None = None,
        *,
        shutdown_s: float = 1.0,
    ) -> None:
        self.port = port
        self.boundary = Boundary(port, (hosts or AcceptedHosts()))
        app.on_response_prepare.append(without_server_header)
        self._runner = _Runner(app, self, shutdown_s)
        self._sites: dict[tuple[str, int], web.BaseSite] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._tls = None if port.tls is None else ServerTls(port.tls)

    @property
    def limits(self) -> Limits:
        """The port's limits."""
        return self.port.limits

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        return [(address[0], address[1]) for address in self._runner.addresses]

    @property
    def connection_count(self) -> int:
        """How many connections are open."""
        protocols = self._runner.protocols
        return protocols.count if protocols is not None else 0

    async def start(self) -> None:
        """Prepare the application. It listens only where `listen` says. Idempotent."""
        if self._sweeper is None:
            UNHANDLED.register(self.port.name)
            await self._runner.setup()
            self._sweeper = asyncio.create_task(self._sweep(), name=f"time-outs {self.port.name}")

    async def listen(self, address: str, number: int, *, fix: str = "") -> int:
        """Listen on an address, and return the port's number. 0 takes a free one.

        A port with TLS waits for the machine's certificate, and refuses plain HTTP.

        Raises:
            Busy: the port is taken, or the machine lacks the address. `fix` says what to do.

        """
        await self.start()
        context = None if self._tls is None else await self._tls.context()
        try:
            listening = _bound(address, number)
        except OSError as error:
            raise Busy(
                f"cannot listen: {error.strerror or error}",
                where=f"{address}:{number}",
                fix=fix or "end the program that listens there",
            ) from error
        self._sites[address, number] = await self._open(listening, context)
        return int(listening.getsockname()[1])

    async def listen_on(self, listening: socket.socket) -> None:
        """Listen on a socket that is bound already."""
        await self.start()
        context = None if self._tls is None else await self._tls.context()
        await self._open(listening, context)

    async def _open(self, listening: socket.socket, context: ssl.SSLContext | None) -> web.BaseSite:
        """Accept connections of a bound socket."""
        connections = self._runner.protocols
        if connections is None:
            raise RuntimeError("the application is not prepared")
        listening.listen(BACKLOG)
        site: web.BaseSite = web.SockSite(self._runner, listening, backlog=BACKLOG)
        if context is not None:
            handshake_s = self.limits.header_s
            site = TlsSite(self._runner, listening, connections, context, handshake_s)
        await site.start()
        return site

    async def stop_listening(self, address: str, number: int) -> None:
        """Close the listener of an address; its connections end by themselves. Idempotent."""
        site = self._sites.pop((address, number), None)
        if site is not None:
            await site.stop()

    async def stop(self) -> None:
        """Stop listening and end all connections. Idempotent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None
            self._sites.clear()
            await self._runner.cleanup()

    async def _sweep(self) -> None:
        limits = self.limits
        interval_s = min(SWEEP_S, limits.header_s / 4, limits.idle_s / 4, limits.blocked_s / 4)
        while True:
            await asyncio.sleep(interval_s)
            if self._tls is not None:
                self._tls.refresh()
            if self._runner.protocols is not None:
                self._runner.protocols.end_overdue()

    # --- what connections ask for

    def refusal(self, status: int, message: str) -> bytes:
        """A whole answer in the port's format that ends the connection."""
        body = self.port.render_error(status, message)
        head = (
            f"HTTP/1.1 {status} {phrase(status)}\r\nContent-Type: {body.content_type}\r\n"
            f"Content-Length: {len(body.content)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode("ascii") + body.content

    def protocol_error(self, error: BaseException | None, message: str) -> web.Response:
        """The answer to what is not HTTP."""
        if isinstance(error, LineTooLong):
            return self.boundary.error(431, "A line or a header of the request is too long")
        first_line = message.strip().partition("\n")[0][:200]
        return self.boundary.error(400, f"Not HTTP/1.1: {first_line.rstrip(':')}")

    def unhandled(self, error: BaseException | None) -> None:
        """Log and count an exception outside of every handler."""
        self.boundary.report(error, method="", path="")


@asynccontextmanager
async def serve(server: HttpServer, address: str, number: int) -> AsyncIterator[int]:
    """Listen while the context is open. Its value is the port's number."""
    try:
        yield await server.listen(address, number)
    finally:
        await server.stop()
