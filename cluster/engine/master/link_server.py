"""The gRPC end of the agents' links. Only a leading master takes agents; any other answers UNAVAILABLE."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

from cluster.engine import link
from cluster.engine.master.events import AgentPong, AgentRegistering, AgentUpdate
from cluster.engine.master.term import LinkQueue, Term
from cluster.errors import Busy

FIRST_MESSAGE_S = 10.0
_OPTIONS = (("grpc.so_reuseport", 0), ("grpc.keepalive_time_ms", 20_000), ("grpc.http2.min_ping_interval_without_data_ms", 5_000))


class LinkServer:
    """Serves `Link/Connect`.

    Args:
        term: this master's term of leadership now, or None.

    """

    def __init__(self, term: Callable[[], Term | None]) -> None:
        self._term = term
        self._server: Any = None

    async def start(self, address: str) -> None:
        """Listen on `ip:port`; returns when it does.

        Raises:
            Busy: the port is taken.

        """
        self._server = grpc.aio.server(options=_OPTIONS)
        service, method = link.METHOD.strip("/").split("/")
        handler = grpc.stream_stream_rpc_method_handler(
            self._connect, request_deserializer=link.decode_from_agent, response_serializer=link.encode
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        try:
            bound = self._server.add_insecure_port(address)
        except RuntimeError:
            bound = 0
        if not bound:
            raise Busy("the agents' link port is taken", where=address, fix="end the program that listens there")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=0.5)

    async def _connect(self, requests: AsyncIterator[link.FromAgent], context: Any) -> None:
        term = self._term()
        if term is None or term.over:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this master does not lead")
            return
        first = await asyncio.wait_for(anext(aiter(requests), None), FIRST_MESSAGE_S)
        if not isinstance(first, link.Register):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be Register")
            return
        link_id = uuid.uuid4().hex
        queue: LinkQueue = asyncio.Queue()
        term.links[link_id] = queue
        reader = asyncio.create_task(_read(term, link_id, requests, queue), name=f"link {link_id}")
        try:
            term.handle(AgentRegistering(link_id, first))
            while not term.over and (message := await queue.get()) is not None:
                await context.write(message)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            term.link_closed(link_id)


async def _read(term: Term, link_id: str, requests: AsyncIterator[link.FromAgent], queue: LinkQueue) -> None:
    try:
        async for message in requests:
            if isinstance(message, link.Update):
                term.handle(AgentUpdate(link_id, message))
            elif isinstance(message, link.Pong):
                term.handle(AgentPong(link_id))
    finally:
        queue.put_nowait(None)
