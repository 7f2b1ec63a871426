"""One term of leadership: feeds events to the core one at a time, and carries out its effects.

The writer of the registry and the clock run here. When a write fails the term ends, because what
is durable is unknown.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TypeAlias

import structlog

from mesaform.common.errors import MesaformError
from mesaform.engine.documents import Document
from mesaform.engine.link import FromMaster
from mesaform.engine.master.core import Master
from mesaform.engine.master.events import (
    CloseLink,
    CloseStream,
    Effect,
    Event,
    LinkClosed,
    Operator,
    Publish,
    Reply,
    SendAgent,
    SendEvent,
    Store,
    Stored,
    StreamClosed,
    Tick,
)
from mesaform.engine.master.registry_store import RegistryStore
from mesaform.engine.master.streams import Stream, record
from mesaform.engine.master.timing import Timings

log = structlog.get_logger("mesaform.master")

HEARTBEAT: Document = {"type": "HEARTBEAT"}
HEARTBEAT_S = 15.0  # Mesos' own interval (DEFAULT_HEARTBEAT_INTERVAL)

LinkQueue: TypeAlias = "asyncio.Queue[FromMaster | None]"
"""Messages to one agent; None ends its link."""


class Term:
    """Carries out a core's effects until `run` ends.

    Args:
        core: the decisions.
        store: the opened registry.
        clock: seconds since the epoch, never decreasing.

    """

    def __init__(self, core: Master, store: RegistryStore, clock: Callable[[], float]) -> None:
        self.core = core
        self.is_over = False
        self.streams: dict[str, Stream] = {}
        self.links: dict[str, LinkQueue] = {}
        self.subscribers: set[Stream] = set()
        self.rounds = Timings("allocator/mesos/allocation_run_ms")
        self.lateness = Timings("allocator/mesos/allocation_run_latency_ms")
        self._store = store
        self._clock = clock
        self._to_store: asyncio.Queue[Store] = asyncio.Queue()
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._tokens = itertools.count(1)
        self._performers: dict[type, Callable[..., None]] = {
            SendEvent: self._send_event,
            CloseStream: self._close_stream,
            SendAgent: self._send_to_agent,
            CloseLink: self._close_link,
            Store: self._to_store.put_nowait,
            Reply: self._reply,
            Publish: self._publish,
        }

    def handle(self, event: Event) -> None:
        """Feed the core and carry out its effects. Nothing happens after the end of the term."""
        if self.is_over:
            return
        for effect in self.core.handle(event, self._clock()):
            self._perform(effect)

    def measured(self) -> dict[str, float]:
        """Times and sizes under Mesos' metric keys."""
        queued = {"registrar/queued_operations": float(self._to_store.qsize())}
        return queued | self.rounds.metrics() | self.lateness.metrics() | self._store.measured()

    async def operate(
        self, type_: str, target: str, *, max_grace_s: float | None = None, mark_gone: bool = False
    ) -> Reply:
        """Make an operator's call and wait for its answer.

        Raises:
            MesaformError: the term ended before the answer.

        """
        token = next(self._tokens)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[token] = reply
        try:
            self.handle(Operator(token, type_, target, max_grace_s, mark_gone))
            return await reply
        finally:
            self._replies.pop(token, None)

    def stream_closed(self, stream_id: str) -> None:
        """Report the end of a scheduler's stream to the core."""
        self.streams.pop(stream_id, None)
        self.handle(StreamClosed(stream_id))

    def link_closed(self, link_id: str) -> None:
        """Report the end of an agent's link to the core."""
        self.links.pop(link_id, None)
        self.handle(LinkClosed(link_id))

    async def run(self) -> None:
        """Run until cancelled, or until a write of the registry fails.

        The latter is no error here: the caller gives up the leadership.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tick(), name="tick")
                group.create_task(self._write(), name="registry")
        except* MesaformError as errors:
            log.warning("term_ended", error=str(errors.exceptions[0]))
        finally:
            self._close()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        heartbeat_at = loop.time() + HEARTBEAT_S
        due_at = loop.time()
        while True:
            started_at = loop.time()
            self.lateness.add((started_at - due_at) * 1000)
            self.handle(Tick())
            self.rounds.add((loop.time() - started_at) * 1000)
            if loop.time() >= heartbeat_at:
                heartbeat_at += HEARTBEAT_S
                for subscriber in self.subscribers:
                    subscriber.push(record(HEARTBEAT))
            due_at = loop.time() + self.core.state.config.allocation_interval_s
            await asyncio.sleep(self.core.state.config.allocation_interval_s)

    async def _write(self) -> None:
        """Write the queued changes in batches, and report each to the core."""
        while True:
            batch = [await self._to_store.get()]
            while not self._to_store.empty():
                batch.append(self._to_store.get_nowait())
            await self._store.write(*(store.change for store in batch))
            for store in batch:
                self.handle(Stored(store.change, store.origin))

    def _close(self) -> None:
        self.is_over = True
        for stream in (*self.streams.values(), *self.subscribers):
            stream.finish()
        for queue in self.links.values():
            queue.put_nowait(None)
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(
                    MesaformError(
                        "this master lost leadership before it could answer",
                        fix="ask the leader again",
                    )
                )

    # --- effects

    def _perform(self, effect: Effect) -> None:
        self._performers[type(effect)](effect)

    def _send_event(self, effect: SendEvent) -> None:
        stream = self.streams.get(effect.stream_id)
        if stream is not None:
            stream.push(record(effect.event))

    def _close_stream(self, effect: CloseStream) -> None:
        stream = self.streams.get(effect.stream_id)
        if stream is not None:
            stream.finish()

    def _send_to_agent(self, effect: SendAgent) -> None:
        queue = self.links.get(effect.link_id)
        if queue is not None:
            queue.put_nowait(effect.message)

    def _close_link(self, effect: CloseLink) -> None:
        queue = self.links.get(effect.link_id)
        if queue is not None:
            queue.put_nowait(None)

    def _reply(self, effect: Reply) -> None:
        reply = self._replies.get(effect.token)
        if reply is not None and not reply.done():
            reply.set_result(effect)

    def _publish(self, effect: Publish) -> None:
        if self.subscribers:
            data = record(effect.event)
            for subscriber in tuple(self.subscribers):
                subscriber.push(data)
