"""The gRPC server of the agents' links.

Only a leading master takes agents. The others answer UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from mesaform.common.errors import Busy
from mesaform.engine import link
from mesaform.engine.master.events import AgentLeaving, AgentPong, AgentRegistering, AgentUpdate
from mesaform.engine.master.term import LinkQueue, Term

if TYPE_CHECKING:
    from grpc.aio import Server, ServicerContext

FIRST_MESSAGE_TIMEOUT_S = 10.0


class LinkServer:
    """Serves `Link/Connect`.

    Args:
        term: gives this master's present term of leadership, or None.
        first_message_timeout_s: the time in which a peer must send `Register`.

    """

    def __init__(
        self,
        term: Callable[[], Term | None],
        first_message_timeout_s: float = FIRST_MESSAGE_TIMEOUT_S,
    ) -> None:
        self._term = term
        self._first_message_timeout_s = first_message_timeout_s
        self._server: Server | None = None

    async def start(self, address: str) -> None:
        """Listen on `ip:port`. The port is open when this returns.

        Raises:
            Busy: the port is taken.

        """
        server = grpc.aio.server(options=link.SERVER_OPTIONS)
        service, method = link.METHOD.strip("/").split("/")
        handler = grpc.stream_stream_rpc_method_handler(
            self._connect,
            request_deserializer=link.decode_from_agent,
            response_serializer=link.encode,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        try:
            port = server.add_insecure_port(address)
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

    async def stop(self) -> None:
        """Close the port and every link."""
        if self._server is not None:
            await self._server.stop(grace=0.5)

    async def _connect(
        self, requests: AsyncIterator[link.FromAgent], context: ServicerContext
    ) -> None:
        term = self._term()
        if term is None or term.is_over:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this master does not lead")
            return
        first = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._first_message_timeout_s):
                first = await anext(aiter(requests), None)
        if not isinstance(first, link.Register):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "the first message must be Register"
            )
            return
        link_id = uuid.uuid4().hex
        queue: LinkQueue = asyncio.Queue()
        term.links[link_id] = queue
        reader = asyncio.create_task(_read(term, link_id, requests, queue), name=f"link {link_id}")
        try:
            term.handle(AgentRegistering(link_id, first))
            while not term.is_over and (message := await queue.get()) is not None:
                await context.write(message)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            term.link_closed(link_id)


async def _read(
    term: Term, link_id: str, requests: AsyncIterator[link.FromAgent], queue: LinkQueue
) -> None:
    try:
        async for message in requests:
            if isinstance(message, link.Update):
                term.handle(AgentUpdate(link_id, message))
            elif isinstance(message, link.Pong):
                term.handle(AgentPong(link_id))
            elif isinstance(message, link.Leaving):
                term.handle(AgentLeaving(link_id))
    finally:
        queue.put_nowait(None)
