"""The shell around the core: while this server leads, it feeds the engine's events and time into the core and does what comes out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from uuid import uuid4

import aiohttp

from mesaform.common.errors import MesaformError, Permanent, Retryable
from mesaform.mesos.messages import Capability, FrameworkInfo, Id
from mesaform.mesos.scheduler import FrameworkRemoved, SchedulerClient
from mesaform.mesos.scheduler_api import Event
from mesaform.services.commands import ApiCommands
from mesaform.services.core import Core
from mesaform.services.effects import Effect, Send
from mesaform.services.model import ROLE
from mesaform.services.store import StateStore

FAILOVER_TIMEOUT_S = 7 * 24 * 3600.0
TICK_S = 1.0
CAPABILITIES = (
    "MULTI_ROLE",
    "PARTITION_AWARE",
    "TASK_KILLING_STATE",
    "GPU_RESOURCES",
    "REGION_AWARE",
)
Answer = TypeVar("Answer")
log = logging.getLogger("services")


class NotLeading(Exception):
    """Another server leads, or none yet, or the state is still being read."""


class StateNotStored(Exception):
    """ZooKeeper did not take a change: what is in memory cannot be trusted, so leadership is given up and the state read again."""


class Scheduler:
    """The framework `marathon`, as long as this server leads.

    Args:
        store: where the state is.
        engine: finds the engine's leading master.
        session: for calls on it; owned by the caller.
        url: this server's own address, shown to the engine.
        clock: seconds since the epoch.

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
        self._not_stored = asyncio.Event()
        self._order = asyncio.Lock()  # one decision is stored and said before the next is made

    @property
    def core(self) -> Core:
        """The state and its rules, to look at.

        Raises:
            NotLeading: this server does not lead.

        """
        if self._core is None:
            raise NotLeading
        return self._core

    async def lead(self, epoch: int) -> None:
        """Take over: load, subscribe, go on until cancelled. Returns when the state cannot be stored, to be elected anew.

        Raises:
            ExceptionGroup: the engine refuses the framework, or another scheduler took it over; this server must end.

        """
        state = await self._store.load()
        self.framework_id = await self._store.framework_id()
        log.info(
            "leading, epoch %d: %d apps, %d instances, framework %s",
            epoch,
            len(state.apps),
            len(state.instances),
            self.framework_id,
        )
        self._core = Core(state, uuid4)
        self._not_stored.clear()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._subscriptions(), name="subscriptions")
                group.create_task(self._ticks(), name="ticks")
                group.create_task(self._until_not_stored(), name="state watch")
        except* StateNotStored as errors:
            log.warning("giving leadership up: %s", errors.exceptions[0])
        finally:
            self._core = self._client = None
            log.info("no longer leading, epoch %d", epoch)

    async def change(
        self, decide: Callable[[ApiCommands, float], tuple[Answer, list[Effect]]]
    ) -> Answer:
        """Make a change that a person asks for; returns when it is stored, whether or not the engine answers now.

        Raises:
            NotLeading: this server does not lead.
            StateNotStored: it may or may not have been made.
            Whatever `decide` raises; nothing is changed then.

        """
        async with self._order:
            answer, effects = decide(ApiCommands(self.core), self.clock())
            await self._carry_out(effects, tolerant=True)
        return answer

    async def _until_not_stored(self) -> None:
        await self._not_stored.wait()
        raise StateNotStored("ZooKeeper did not take a change")

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self._decide(lambda core: core.tick(self.clock()), tolerant=True)

    async def _subscriptions(self) -> None:
        while True:
            self._client = SchedulerClient(self._engine, self._info(), self._session, log.info)
            try:
                await self._client.run(self._handle)
            except FrameworkRemoved as error:
                log.warning("%s: starting everything anew under a new framework id", error)
                await self._store.keep_framework_id(None)
                self.framework_id = None
                await self._decide(lambda core: core.framework_removed(self.clock()), tolerant=True)

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
        elif (
            event.failure is not None
            and event.failure.agent_id is not None
            and event.failure.executor_id is None
        ):
            self.core.agent_failed(event.failure.agent_id.value)

    async def _subscribed(self, framework_id: str) -> None:
        if framework_id != self.framework_id:
            await self._store.keep_framework_id(framework_id)
            self.framework_id = framework_id
        await self._decide(lambda core: core.subscribed(self.clock()))

    async def _decide(
        self, decide: Callable[[Core], list[Effect]], *, tolerant: bool = False
    ) -> None:
        async with self._order:
            await self._carry_out(decide(self.core), tolerant=tolerant)

    async def _carry_out(self, effects: Sequence[Effect], *, tolerant: bool) -> None:
        """Store first, then speak. What cannot be said is said again after the next subscription or tick, so `tolerant` may drop it."""
        try:
            await self._store.apply(effects)
        except MesaformError as error:
            self._not_stored.set()
            raise StateNotStored(str(error)) from error
        for effect in effects:
            if isinstance(effect, Send) and self._client is not None:
                try:
                    await self._client.call(effect.call)
                except Permanent as error:
                    log.exception("the engine refuses a call: %s", error)  # noqa: TRY401
                    self.core.not_said()
                except Retryable:
                    self.core.not_said()
                    if not tolerant:
                        raise
