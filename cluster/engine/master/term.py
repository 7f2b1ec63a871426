"""One term of leadership: events go into the core one at a time, its effects are carried out in order.

The registry's writer and the clock run here too; when a write fails the term is over, because what is durable is unknown.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import TypeAlias

from mesaform.common.errors import MesaformError
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

log = logging.getLogger("mesaform.master")

HEARTBEAT = {"type": "HEARTBEAT"}
HEARTBEAT_S = 15.0

LinkQueue: TypeAlias = "asyncio.Queue[FromMaster | None]"


class Term:
    """Carries a core's effects out until `run` ends.

    Args:
        core: the decisions.
        store: the opened registry.
        clock: seconds since the epoch, never going back.

    """

    def __init__(self, core: Master, store: RegistryStore, clock: Callable[[], float]) -> None:
        self.core = core
        self.over = False
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

    def handle(self, event: Event) -> None:
        """Let the core think and do what it says; nothing after the term is over."""
        if self.over:
            return
        for effect in self.core.handle(event, self._clock()):
            self._carry_out(effect)

    def measured(self) -> dict[str, float]:
        """Times and sizes, under the keys of the metrics."""
        queued = {"registrar/queued_operations": float(self._to_store.qsize())}
        return queued | self.rounds.metrics() | self.lateness.metrics() | self._store.measured()

    async def operate(
        self, type_: str, target: str, *, max_grace_s: float | None = None, mark_gone: bool = False
    ) -> Reply:
        """An operator's call and its answer.

        Raises:
            MesaformError: leadership ended before the answer.

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
        """A scheduler's stream is no more."""
        self.streams.pop(stream_id, None)
        self.handle(StreamClosed(stream_id))

    def link_closed(self, link_id: str) -> None:
        """An agent's link is no more."""
        self.links.pop(link_id, None)
        self.handle(LinkClosed(link_id))

    async def run(self) -> None:
        """Until cancelled, or a registry write fails (which ends it quietly: the caller gives leadership up)."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tick(), name="tick")
                group.create_task(self._write(), name="registry")
        except* MesaformError as errors:
            log.error("the term ends: %s", errors.exceptions[0])  # noqa: TRY400 - expected when deposed
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
        """Write changes to the registry, as many as wait at a time, and let the core know."""
        while True:
            batch = [await self._to_store.get()]
            while not self._to_store.empty():
                batch.append(self._to_store.get_nowait())
            await self._store.write(*(one.change for one in batch))
            for one in batch:
                self.handle(Stored(one.change, one.origin))

    def _close(self) -> None:
        self.over = True
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

    def _carry_out(self, effect: Effect) -> None:  # noqa: C901, PLR0912 - one case an effect
        match effect:
            case SendEvent():
                if (stream := self.streams.get(effect.stream_id)) is not None:
                    stream.push(record(effect.event))
            case CloseStream():
                if (stream := self.streams.get(effect.stream_id)) is not None:
                    stream.finish()
            case SendAgent():
                if (queue := self.links.get(effect.link_id)) is not None:
                    queue.put_nowait(effect.message)
            case CloseLink():
                if (queue := self.links.get(effect.link_id)) is not None:
                    queue.put_nowait(None)
            case Store():
                self._to_store.put_nowait(effect)
            case Reply():
                reply = self._replies.get(effect.token)
                if reply is not None and not reply.done():
                    reply.set_result(effect)
            case Publish():
                if self.subscribers:
                    data = record(effect.event)
                    for subscriber in tuple(self.subscribers):
                        subscriber.push(data)
