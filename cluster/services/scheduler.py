"""Shell of the core: while this server leads, it applies events and time and carries out effects.

Depends on `mesaform.mesos.scheduler` (the framework's subscription) and `store` (ZooKeeper).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from uuid import uuid4

import aiohttp
import structlog

from mesaform.common.errors import MesaformError, Permanent, Retryable
from mesaform.mesos.messages import Capability, FrameworkInfo, Id
from mesaform.mesos.scheduler import FrameworkRemoved, SchedulerClient
from mesaform.mesos.scheduler_api import Call, Event, Failure
from mesaform.services.commands import ApiCommands
from mesaform.services.core import Core
from mesaform.services.effects import Effect, Send
from mesaform.services.model import ROLE
from mesaform.services.store import StateStore

FAILOVER_TIMEOUT_S = 7 * 24 * 3600.0
"""How long tasks run without a leader; Marathon's default, one week."""

TICK_INTERVAL_S = 1.0
CAPABILITIES = (
    "MULTI_ROLE",
    "PARTITION_AWARE",
    "TASK_KILLING_STATE",
    "GPU_RESOURCES",
    "REGION_AWARE",
)
Answer = TypeVar("Answer")
log = structlog.get_logger("services")


class NotLeading(Exception):
    """Another server leads, or no server does, or the state is still being read."""


class StateNotStored(Exception):
    """ZooKeeper did not accept a change, so memory and ZooKeeper may differ.

    The server gives up leadership and reads the state again when it is elected.
    """


class Scheduler:
    """The framework `marathon`, while this server leads.

    Args:
        store: the state in ZooKeeper.
        engine: returns the leading master's base URL.
        session: for calls; the caller closes it.
        url: this server's own address, shown in the engine's web page.
        clock: epoch seconds.

    """

    def __init__(
        self,
        store: StateStore,
        engine: Callable[[], Awaitable[str]],
        session: aiohttp.ClientSession,
        url: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self.framework_id: str | None = None
        self._store, self._engine, self._session, self._url = store, engine, session, url
        self._core: Core | None = None
        self._client: SchedulerClient | None = None
        self._store_failed = asyncio.Event()
        # A decision is stored and sent before the next one is made.
        self._lock = asyncio.Lock()

    @property
    def core(self) -> Core:
        """The leading core, for reading.

        Raises:
            NotLeading: this server does not lead.

        """
        if self._core is None:
            raise NotLeading
        return self._core

    async def lead(self, epoch: int) -> None:
        """Load the state, subscribe and serve until cancelled.

        Returns when the state cannot be stored; the caller enters the election again.

        Raises:
            ExceptionGroup: the engine refuses the framework, or another scheduler subscribed with
                its id; this server must end.

        """
        state = await self._store.load()
        self.framework_id = await self._store.framework_id()
        log.info(
            "leading",
            epoch=epoch,
            apps=len(state.apps),
            instances=len(state.instances),
            framework_id=self.framework_id,
        )
        self._core = Core(state, uuid4)
        self._store_failed.clear()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._subscribe(), name="subscriptions")
                group.create_task(self._tick(), name="ticks")
                group.create_task(self._wait_for_store_failure(), name="state watch")
        except* StateNotStored as errors:
            log.warning("giving up leadership", error=str(errors.exceptions[0]))
        finally:
            self._core = self._client = None
            log.info("no longer leading", epoch=epoch)

    async def change(
        self, decide: Callable[[ApiCommands, float], tuple[Answer, list[Effect]]]
    ) -> Answer:
        """Make a change of the REST API; return once it is stored.

        Calls that the engine does not answer now are repeated later.

        Raises:
            NotLeading: this server does not lead.
            StateNotStored: the change may or may not be stored.
            Exception: whatever `decide` raises; nothing is changed then.

        """
        async with self._lock:
            answer, effects = decide(ApiCommands(self.core), self.clock())
            await self._carry_out(effects, may_drop_calls=True)
        return answer

    async def _wait_for_store_failure(self) -> None:
        await self._store_failed.wait()
        raise StateNotStored("ZooKeeper did not accept a change")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_INTERVAL_S)
            await self._decide(lambda core: core.tick(self.clock()), may_drop_calls=True)

    async def _subscribe(self) -> None:
        """Keep a subscription; a removed framework subscribes again with a new id."""
        while True:
            self._client = SchedulerClient(self._engine, self._info(), self._session, log.info)
            try:
                await self._client.run(self._handle)
            except FrameworkRemoved as error:
                log.warning("framework removed: starting with a new id", error=str(error))
                await self._store.store_framework_id(None)
                self.framework_id = None
                await self._decide(
                    lambda core: core.framework_removed(self.clock()), may_drop_calls=True
                )

    def _info(self) -> FrameworkInfo:
        return FrameworkInfo(
            user="root",
            name="marathon",
            id=Id(value=self.framework_id) if self.framework_id else None,
            failover_timeout=FAILOVER_TIMEOUT_S,
            checkpoint=True,
            roles=[ROLE],
            webui_url=self._url,
            capabilities=[Capability(type=name) for name in CAPABILITIES],
        )

    async def _handle(self, event: Event) -> None:
        now = self.clock()
        if event.subscribed is not None:
            await self._subscribed(event.subscribed.framework_id.value)
        elif (offers := event.offers) is not None:
            await self._decide(lambda core: core.offers(offers.offers, now))
        elif (update := event.update) is not None:
            await self._decide(lambda core: core.status(update.status, now))
        elif event.failure is not None:
            self._failed(event.failure)

    def _failed(self, failure: Failure) -> None:
        """Apply the failure of an agent; those of executors have no effect."""
        if failure.agent_id is not None and failure.executor_id is None:
            self.core.agent_failed(failure.agent_id.value)

    async def _subscribed(self, framework_id: str) -> None:
        if framework_id != self.framework_id:
            await self._store.store_framework_id(framework_id)
            self.framework_id = framework_id
        await self._decide(lambda core: core.subscribed(self.clock()))

    async def _decide(
        self, decide: Callable[[Core], list[Effect]], *, may_drop_calls: bool = False
    ) -> None:
        async with self._lock:
            await self._carry_out(decide(self.core), may_drop_calls=may_drop_calls)

    async def _carry_out(self, effects: Sequence[Effect], *, may_drop_calls: bool) -> None:
        """Store, then send.

        The core repeats a call that was not sent after the next subscription or tick. Unless calls
        may be dropped, `Retryable` is raised so that the client subscribes again.
        """
        try:
            await self._store.apply(effects)
        except MesaformError as error:
            self._store_failed.set()
            raise StateNotStored(str(error)) from error
        for effect in effects:
            if isinstance(effect, Send) and self._client is not None:
                await self._send(self._client, effect.call, may_drop=may_drop_calls)

    async def _send(self, client: SchedulerClient, call: Call, *, may_drop: bool) -> None:
        try:
            await client.call(call)
        except Permanent:
            log.exception("the engine refuses a call", call=call.type)
            self.core.call_failed()
        except Retryable:
            self.core.call_failed()
            if not may_drop:
                raise
