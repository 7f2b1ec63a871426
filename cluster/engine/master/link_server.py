"""The gRPC server of the agents' links.

Only a leading master takes agents. The others answer UNAVAILABLE. A message that is invalid, or
that the master fails to handle, ends its own link and nothing else: with INVALID_ARGUMENT and the
reason, or with INTERNAL and the id of the log entry.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import structlog

from mesaform.common.backoff import Backoff
from mesaform.common.errors import Busy
from mesaform.common.tls import TlsFiles
from mesaform.engine import link
from mesaform.engine.link_tls import require_own_certificate, server_credentials
from mesaform.engine.link_validation import read_from_agent
from mesaform.engine.master.agent_identity import instance_of
from mesaform.engine.master.events import AgentLeaving, AgentPong, AgentRegistering, AgentUpdate
from mesaform.engine.master.link_connections import (
    SWEEP_S,
    LinkConnections,
    Peer,
    most_connections,
)
from mesaform.engine.master.state import INTERNAL_ERROR
from mesaform.engine.master.term import CallFailed, EndOfLink, LinkQueue, Term
from mesaform.http import UNHANDLED
from mesaform.topology.instance_identity import InstanceVerifier, Unproven

if TYPE_CHECKING:
    from grpc.aio import Server, ServicerContext

log = structlog.get_logger("mesaform.master")

PORT = "5052"
"""Label of `mesaform_unhandled_errors_total`."""
FIRST_MESSAGE_TIMEOUT_S = 10.0
REJECTION_PAUSE = Backoff(first_s=0.1, cap_s=10.0)
LOG_INTERVAL_S = 30.0
"""Seconds in which at most one rejection of a peer is logged."""
FORGET_REJECTIONS_S = 60.0
MAX_WAITING_STREAMS = 8
"""Rejected streams of one peer that may wait for their end at the same time."""
MAX_REASON_LENGTH = 500
NOT_LEADING = "this master does not lead"
"""Characters of a stream's status: HTTP/2 sends it in a header."""


@dataclass(slots=True)
class Rejections:
    """The streams of one peer that were rejected lately. Times are monotonic seconds."""

    count: int = 0
    last_at: float = 0.0
    logged_at: float = -LOG_INTERVAL_S
    waiting: int = 0

    def must_log(self, now: float) -> bool:
        """Count a rejection; whether it must be logged."""
        self.count = 1 if now - self.last_at > FORGET_REJECTIONS_S else self.count + 1
        self.last_at = now
        if now - self.logged_at < LOG_INTERVAL_S:
            return False
        self.logged_at = now
        return True

    def pause_s(self) -> float:
        """How long the peer waits for the end of its stream."""
        return REJECTION_PAUSE.delay_s(self.count, 0.0)


class LinkServer:
    """Serves `Link/Connect`.

    Args:
        term: gives this master's present term of leadership, or None.
        first_message_timeout_s: the time in which a peer must send `Register`.
        verifier: decides which agents are taken; None takes every agent.
        tls: the machine's TLS files: agents must then have a certificate of the cluster's CA.

    `refusals` counts the agents that were not.

    """

    def __init__(
        self,
        term: Callable[[], Term | None],
        first_message_timeout_s: float = FIRST_MESSAGE_TIMEOUT_S,
        verifier: InstanceVerifier | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self._term = term
        self._tls = tls
        self._verifier = verifier
        self.refusals = 0
        self._first_message_timeout_s = first_message_timeout_s
        self._server: Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._linked: set[Peer] = set()
        self._rejections: dict[str, Rejections] = {}
        #: Streams that were ended because of what the agent sent.
        self.rejected = 0

    async def start(self, address: str) -> None:
        """Listen on `ip:port`. The port is open when this returns.

        Raises:
            Busy: the port is taken.

        """
        most = ("grpc.max_allowed_incoming_connections", most_connections())
        server = grpc.aio.server(options=[*link.SERVER_OPTIONS, most])
        service, method = link.METHOD.strip("/").split("/")
        handler = grpc.stream_stream_rpc_method_handler(
            self._connect, request_deserializer=None, response_serializer=None
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        try:
            port = self._open(server, address)
        except RuntimeError:
            port = 0
        if not port:
            raise Busy(
                "the agents' link port is taken",
                where=address,
                fix="end the program that listens there",
            )
        self._server = server
        await server.start()
        host = address.rpartition(":")[0].strip("[]")
        connections = LinkConnections((host, port))
        self._sweeper = asyncio.create_task(self._sweep(connections), name="link connections")

    def _open(self, server: Server, address: str) -> int:
        if self._tls is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, server_credentials(self._tls)))

    async def stop(self) -> None:
        """Close the port and every link."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        if self._server is not None:
            await self._server.stop(grace=0.5)

    async def _sweep(self, connections: LinkConnections) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                connections.sweep(self._linked)
            except OSError as error:  # of /proc; the process may lack files at this moment
                log.warning("link_connections_unreadable", error=str(error))

    async def _connect(self, requests: AsyncIterator[bytes], context: ServicerContext) -> None:
        term = self._term()
        if term is None or term.is_over:
            await context.abort(grpc.StatusCode.UNAVAILABLE, NOT_LEADING)
            return
        try:
            await self._serve(term, requests, context)
        except link.BadMessage as error:
            await self._reject(context, str(error), grpc.StatusCode.INVALID_ARGUMENT)
        except Unproven as error:
            self.refusals += 1
            await self._reject(context, str(error), grpc.StatusCode.PERMISSION_DENIED)
        except grpc.aio.BaseError:
            raise  # gRPC's own: the peer is gone
        except Exception:
            error_id = uuid.uuid4().hex[:12]
            UNHANDLED.add(PORT)
            log.exception("unhandled_error", id=error_id, port=PORT)
            await context.abort(grpc.StatusCode.INTERNAL, f"{INTERNAL_ERROR} under {error_id}")
        if term.is_over:
            await context.abort(grpc.StatusCode.UNAVAILABLE, NOT_LEADING)

    async def _serve(
        self, term: Term, requests: AsyncIterator[bytes], context: ServicerContext
    ) -> None:
        """Serve one agent until its link ends.

        Raises:
            BadMessage: the agent sent something else than the protocol says, or it is rejected.
            Unproven: the agent does not prove that it may register like this.
            CallFailed: a message met a fault of the master.

        """
        register = await self._first_message(requests)
        instance_id = self._instance_of(register, context.peer(), term)
        if self._tls is not None:
            require_own_certificate(instance_id, context.auth_context())
        link_id = uuid.uuid4().hex
        queue: LinkQueue = asyncio.Queue()
        peer = _peer(context.peer())
        self._linked.add(peer)
        term.links[link_id] = queue
        reader = asyncio.create_task(_read(term, link_id, requests, queue), name=f"link {link_id}")
        message: bytes | EndOfLink = EndOfLink()
        try:
            term.handle(AgentRegistering(link_id, register, instance_id=instance_id))
            while not term.is_over:
                message = await queue.get()
                if isinstance(message, EndOfLink):
                    break
                await context.write(message)
        finally:
            self._linked.discard(peer)
            reader.cancel()
            results = await asyncio.gather(reader, return_exceptions=True)
            term.link_closed(link_id)
        if isinstance(results[0], link.BadMessage | CallFailed):
            raise results[0]
        if isinstance(message, EndOfLink) and message.why:
            raise link.BadMessage(message.why)

    async def _first_message(self, requests: AsyncIterator[bytes]) -> link.Register:
        data = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._first_message_timeout_s):
                data = await anext(aiter(requests), None)
        message = None if data is None else read_from_agent(data)
        if not isinstance(message, link.Register):
            raise link.BadMessage("the first message must be Register")
        return message

    async def _reject(self, context: ServicerContext, why: str, code: grpc.StatusCode) -> None:
        """End a link with the reason, after a pause that grows with the peer's rejections.

        The pause delays a peer that repeats its message, and nobody else. Few of a peer's streams
        may wait, so that their number does not grow.
        """
        peer = str(context.peer()).rpartition(":")[0]
        now = time.monotonic()
        rejections = self._rejections.setdefault(peer, Rejections())
        self.rejected += 1
        if rejections.must_log(now):
            log.warning("link_rejected", peer=peer, error=why, count=rejections.count)
        if rejections.waiting < MAX_WAITING_STREAMS:
            rejections.waiting += 1
            try:
                await asyncio.sleep(rejections.pause_s())
            finally:
                rejections.waiting -= 1
        self._forget_old(now)
        await context.abort(code, why[:MAX_REASON_LENGTH])

    def _forget_old(self, now: float) -> None:
        for peer, rejections in list(self._rejections.items()):
            if not rejections.waiting and now - rejections.last_at > FORGET_REJECTIONS_S:
                del self._rejections[peer]

    def _instance_of(self, register: link.Register, peer: str, term: Term) -> str:
        """The instance that the agent proves to be; empty without a verifier.

        Raises:
            Unproven: it proves none, or another one than the agent id's.

        """
        if self._verifier is None:
            return ""
        record = term.core.state.record(register.agent_id) if register.agent_id else None
        return instance_of(register, peer, record, self._verifier)


def _peer(text: str) -> Peer:
    """Address and port of gRPC's `ipv4:10.0.0.1:4711` or `ipv6:%5B::1%5D:4711`."""
    host, _, port = urllib.parse.unquote(text).partition(":")[2].rpartition(":")
    return host.strip("[]"), int(port) if port.isdecimal() else 0


async def _read(term: Term, link_id: str, requests: AsyncIterator[bytes], queue: LinkQueue) -> None:
    try:
        async for data in requests:
            message = read_from_agent(data)
            if isinstance(message, link.Update):
                term.handle(AgentUpdate(link_id, message))
            elif isinstance(message, link.Pong):
                term.handle(AgentPong(link_id))
            elif isinstance(message, link.Leaving):
                term.handle(AgentLeaving(link_id))
            else:
                raise link.BadMessage("Register must be the first message, and the only one")
    finally:
        queue.put_nowait(EndOfLink())
