"""One term of leadership: feeds events to the core one at a time, and carries out its effects.

The writer of the registry and the clock run here. A fault in one event or effect is logged, counted
and raised to the caller that it belongs to; the term goes on. The leader resigns when a write
fails, because what is durable is unknown, and when passes fail one after another.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from mesaform.common.conditions import Condition, Conditions, Resigned
from mesaform.common.errors import LeadershipLost, MesaformError
from mesaform.engine import link
from mesaform.engine.documents import Document
from mesaform.engine.master.core import STEPS, EventFailed, Master
from mesaform.engine.master.events import (
    CloseLink,
    CloseStream,
    Effect,
    Event,
    LinkClosed,
    NotStored,
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
from mesaform.engine.registry import Change
from mesaform.http import UNHANDLED

log = structlog.get_logger("mesaform.master")

PORT = "engine"
"""Label of `mesaform_unhandled_errors_total` for faults in events that have no caller."""
HEARTBEAT: Document = {"type": "HEARTBEAT"}
HEARTBEAT_S = 15.0  # Mesos' own interval (DEFAULT_HEARTBEAT_INTERVAL)


@dataclass(frozen=True, slots=True)
class EndOfLink:
    """The link ends here. `why` is for an agent that is rejected."""

    why: str = ""


LinkQueue: TypeAlias = "asyncio.Queue[bytes | EndOfLink]"
"""Encoded messages to one agent."""


class CallFailed(Exception):
    """An event met an unexpected exception, which is its cause. The term goes on."""


class Term:
    """Carries out a core's effects until `run` ends.

    Args:
        core: the decisions.
        store: the opened registry.
        clock: seconds since the epoch, never decreasing.
        conditions: what a leader needs; the term reports on passes and on the registry.

    """

    def __init__(
        self,
        core: Master,
        store: RegistryStore,
        clock: Callable[[], float],
        conditions: Conditions,
    ) -> None:
        self.core = core
        self.is_over = False
        #: Unexpected exceptions of this term, by the event or effect that they occurred in.
        self.faults: Counter[str] = Counter()
        self.streams: dict[str, Stream] = {}
        self.links: dict[str, LinkQueue] = {}
        self.subscribers: set[Stream] = set()
        self.rounds = Timings("allocator/mesos/allocation_run_ms")
        self.lateness = Timings("allocator/mesos/allocation_run_latency_ms")
        self._failed_steps = 0
        self._store = store
        self._clock = clock
        self._conditions = conditions
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
        """Feed the core and carry out its effects. Nothing happens after the end of the term.

        Raises:
            CallFailed: the event's handler failed. What the event had changed is repaired.

        """
        if self.is_over:
            return
        failure: EventFailed | None = None
        try:
            effects = self.core.handle(event, self._clock())
        except EventFailed as error:
            failure, effects = error, error.effects
        for effect in effects:
            self._perform(effect)
        if failure is not None:
            self._report(type(event).__name__, failure)

    def handle_contained(self, event: Event) -> None:
        """Feed an event that has no caller. A fault is logged and counted."""
        try:
            self.handle(event)
        except CallFailed as error:
            self._log_fault(type(event).__name__, "event", error)

    def _report(self, event: str, failure: EventFailed) -> None:
        """Raise the event's own fault to its caller, who logs it. Log those of other owners."""
        own: Exception | None = None
        for owner, fault in failure.faults:
            self._failed_steps += owner in {event, *STEPS}
            if own is None and not failure.is_handled and owner == event:
                own = fault
            else:
                self._log_fault(event, owner, fault)
        if own is not None:
            self.faults[event] += 1
            raise CallFailed(f"{event} failed: {type(own).__name__}") from own

    def _log_fault(self, event: str, owner: str, fault: Exception) -> None:
        UNHANDLED.add(PORT)
        self.faults[event] += 1
        log.error("event_failed", kind=event, owner=owner, exc_info=fault)

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
        self.handle_contained(StreamClosed(stream_id))

    def link_closed(self, link_id: str) -> None:
        """Report the end of an agent's link to the core."""
        self.links.pop(link_id, None)
        self.handle_contained(LinkClosed(link_id))

    async def run(self) -> None:
        """Run until cancelled, or until another leader wrote the registry.

        Raises:
            Resigned: the registry cannot be written, or passes fail one after another.

        """
        resigned: Resigned | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tick(), name="tick")
                group.create_task(self._write(), name="registry")
        except* LeadershipLost as errors:
            log.warning("term_ended", error=str(errors.exceptions[0]))
        except* Resigned as errors:
            resigned = next(error for error in errors.exceptions if isinstance(error, Resigned))
        finally:
            self._close()
        if resigned is not None:
            raise resigned

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        heartbeat_at = loop.time() + HEARTBEAT_S
        due_at = loop.time()
        while True:
            started_at = loop.time()
            self.lateness.add((started_at - due_at) * 1000)
            self._pass()
            self.rounds.add((loop.time() - started_at) * 1000)
            if loop.time() >= heartbeat_at:
                heartbeat_at += HEARTBEAT_S
                for subscriber in self.subscribers:
                    subscriber.push(record(HEARTBEAT))
            due_at = loop.time() + self.core.state.config.allocation_interval_s
            await asyncio.sleep(self.core.state.config.allocation_interval_s)

    def _pass(self) -> None:
        """Handle one tick.

        Raises:
            Resigned: too many passes in a row failed.

        """
        before = self._failed_steps
        self.handle_contained(Tick())
        if self._failed_steps > before:
            self._conditions.failed(Condition.PASSES, "see `event_failed` in the master's log")
        else:
            self._conditions.satisfied(Condition.PASSES)
        self._conditions.check()

    async def _write(self) -> None:
        """Write the queued changes in batches, and report each to the core."""
        while True:
            batch = [await self._to_store.get()]
            while not self._to_store.empty():
                batch.append(self._to_store.get_nowait())
            refusals = await self._write_batch([store.change for store in batch])
            for store, why in zip(batch, refusals, strict=True):
                self.handle_contained(
                    Stored(store.change, store.origin)
                    if why is None
                    else NotStored(store.change, store.origin, why)
                )

    async def _write_batch(self, changes: list[Change]) -> list[str | None]:
        """Write changes, as `RegistryStore.write` does.

        Raises:
            LeadershipLost: another leader wrote.
            Resigned: the write failed, so that what is durable is unknown.

        """
        try:
            refusals = await self._store.write(*changes)
        except LeadershipLost:
            raise
        except MesaformError as error:
            raise Resigned(Condition.ZOOKEEPER, f"the registry was not written: {error}") from error
        self._conditions.satisfied(Condition.ZOOKEEPER)
        return refusals

    def _close(self) -> None:
        self.is_over = True
        for stream in (*self.streams.values(), *self.subscribers):
            stream.finish()
        for queue in self.links.values():
            queue.put_nowait(EndOfLink())
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
        """Carry out an effect. One that fails ends the stream or link that it is for."""
        try:
            self._performers[type(effect)](effect)
        except Exception:  # a fault in one effect must not lose the effects after it
            kind = type(effect).__name__
            UNHANDLED.add(PORT)
            self.faults[kind] += 1
            log.exception("effect_failed", kind=kind)
            if isinstance(effect, SendEvent):
                self._close_stream(CloseStream(effect.stream_id))
            elif isinstance(effect, SendAgent):
                # The agent registers again. A launch that it did not get is reported as dropped.
                self._close_link(CloseLink(effect.link_id))

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
            queue.put_nowait(link.encode(effect.message))

    def _close_link(self, effect: CloseLink) -> None:
        queue = self.links.get(effect.link_id)
        if queue is not None:
            queue.put_nowait(EndOfLink(effect.why))

    def _reply(self, effect: Reply) -> None:
        reply = self._replies.get(effect.token)
        if reply is not None and not reply.done():
            reply.set_result(effect)

    def _publish(self, effect: Publish) -> None:
        if self.subscribers:
            data = record(effect.event)
            for subscriber in tuple(self.subscribers):
                subscriber.push(data)
