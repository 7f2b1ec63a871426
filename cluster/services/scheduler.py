"""Shell of the core: while this server leads, it applies events and time and carries out effects.

Depends on `mesaform.mesos.scheduler` (the framework's subscription) and `store` (ZooKeeper).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import uuid4

import aiohttp
import structlog

from mesaform.aws.ports.snapshots import RestoreRequest
from mesaform.common.conditions import Condition, Resigned
from mesaform.common.errors import MesaformError, Permanent, Retryable
from mesaform.common.faults import Fault, contained
from mesaform.common.records import Unreadable
from mesaform.mesos.credential import Credential
from mesaform.mesos.messages import Capability, FrameworkInfo, Id
from mesaform.mesos.operator import OperatorClient
from mesaform.mesos.scheduler import FrameworkRemoved, SchedulerClient
from mesaform.mesos.scheduler_api import Call, Event, Failure
from mesaform.placement.preference import Strategy
from mesaform.services.backups import Backups
from mesaform.services.commands import ApiCommands
from mesaform.services.core import Core
from mesaform.services.effects import Effect, Send
from mesaform.services.framework_lookup import FRAMEWORK_NAME, find_framework_id
from mesaform.services.model import ROLE
from mesaform.services.outputs import Outputs
from mesaform.services.snapshot_content import StateContent
from mesaform.services.state import State
from mesaform.services.store import StateStore
from mesaform.zookeeper.session import ZooKeeperUnavailable

FAILOVER_TIMEOUT_S = 7 * 24 * 3600.0
"""How long tasks run without a leader; Marathon's default, one week."""

TICK_INTERVAL_S = 1.0
SET_ASIDE_CHECK_S = 60.0
"""Longest time until a restored record is noticed when its watch was lost."""
CAPABILITIES = (
    "MULTI_ROLE",
    "PARTITION_AWARE",
    "TASK_KILLING_STATE",
    "GPU_RESOURCES",
    "REGION_AWARE",
)
SHOWN_APPS = 5
"""Names of apps in an error."""
Answer = TypeVar("Answer")
log = structlog.get_logger("services")


class NotLeading(Exception):
    """Another server leads, or no server does, or the state is still being read."""


class StateNotStored(Exception):
    """ZooKeeper did not accept a change, so memory and ZooKeeper may differ.

    The server gives up leadership and reads the state again when it is elected.
    """


class StateRestored(Exception):
    """An operator restored or removed records: the state is read again."""


@dataclass(frozen=True, slots=True)
class FrameworkSettings:
    """How the framework appears to the engine.

    `url` is this server's own address, shown in the engine's page. `credential` proves the
    principal. `task_user` is the user of apps that name none; empty: the framework's own, root,
    which the embedded engine replaces by the cluster's user of tasks. `placement` chooses the
    agents of instances.
    """

    url: str
    credential: Credential | None = None
    task_user: str = ""
    placement: Strategy = "spread"


class Scheduler:
    """The framework `marathon`, while this server leads.

    Args:
        store: the state in ZooKeeper.
        engine: returns the leading master's base URL.
        session: for calls; the caller closes it.
        framework: how the framework appears to the engine.
        outputs: what this server counts.
        backups: snapshots of the state; None: there are none.

    """

    def __init__(
        self,
        store: StateStore,
        engine: Callable[[], Awaitable[str]],
        session: aiohttp.ClientSession,
        framework: FrameworkSettings,
        outputs: Outputs | None = None,
        backups: Backups | None = None,
    ) -> None:
        self._framework = framework
        self.clock: Callable[[], float] = time.time
        self.framework_id: str | None = None
        self.outputs = outputs or Outputs(time.monotonic)
        self._store, self._engine, self._session = store, engine, session
        self._core: Core | None = None
        self._client: SchedulerClient | None = None
        self._store_failed = asyncio.Event()
        self._must_find_framework = False
        self._backups = backups
        self._is_restoring = False
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

    @property
    def is_leading(self) -> bool:
        """Whether this server leads and has read the state."""
        return self._core is not None

    async def lead(self, epoch: int) -> None:
        """Load the state, subscribe and serve until cancelled.

        Raises:
            Resigned: the state cannot be stored, or nothing succeeds: another server should lead.
            ExceptionGroup: the engine refuses the framework, or another scheduler subscribed with
                its id; this server must end.

        """
        self.outputs.conditions.reset()
        try:
            while await self._serve(epoch):
                log.info("the state is read again", epoch=epoch)
        finally:
            self.outputs.conditions.reset()

    async def _serve(self, epoch: int) -> bool:
        """Serve one reading of the state; whether it must be read again."""
        if self._backups is not None:
            self._backups.begin_term()
            await self._backups.complete()
        await self._load(epoch)
        is_restored = self._is_restoring = False
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._subscribe(), name="subscriptions")
                group.create_task(self._tick(), name="ticks")
                group.create_task(self._wait_for_store_failure(), name="state watch")
                group.create_task(self._watch_set_aside(), name="set-aside watch")
                if self._backups is not None:
                    group.create_task(self._back_up(self._backups), name="snapshots")
        except* StateRestored:
            is_restored = True
        except* (StateNotStored, Resigned, ZooKeeperUnavailable) as errors:
            raise _resignation(errors.exceptions[0]) from None
        finally:
            self._core = self._client = None
            log.info("no longer leading", epoch=epoch)
        return is_restored

    async def _load(self, epoch: int) -> None:
        known = await self._store.set_aside()
        state = await self._store.load(self.clock())
        framework_id = await self._store.framework_id()
        self._must_find_framework = isinstance(framework_id, Unreadable)
        self.framework_id = framework_id if isinstance(framework_id, str) else None
        log.info(
            "leading",
            epoch=epoch,
            apps=len(state.apps),
            instances=len(state.instances),
            set_aside=len(known | await self._store.set_aside()),
            framework_id=self.framework_id,
        )
        framework = self._framework
        self._core = Core(state, uuid4, framework.task_user, framework.placement)
        self._store_failed.clear()

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
            self._report_faults()
            await self._carry_out(effects, may_drop_calls=True)
        return answer

    async def _wait_for_store_failure(self) -> None:
        await self._store_failed.wait()
        raise StateNotStored("ZooKeeper did not accept a change")

    async def _watch_set_aside(self) -> None:
        """Wait until an operator restores or removes a record that was set aside."""
        changed = asyncio.Event()
        known = await self._store.set_aside(changed.set)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SET_ASIDE_CHECK_S):
                    await changed.wait()
            changed.clear()
            entries = await self._store.set_aside(changed.set)
            if known - entries:
                raise StateRestored
            known = entries

    async def _back_up(self, backups: Backups) -> None:
        """Write snapshots, and restore one on request. What fails is reported and ends nothing.

        Raises:
            StateRestored: a restoration was announced; it is completed before the next reading.

        """
        while True:
            await asyncio.sleep(TICK_INTERVAL_S)
            faults: list[Fault] = []
            with contained("snapshots", "services", faults):
                await backups.save_if_due(self._content())
                request = await backups.next_request(is_empty=self._content().is_empty)
                if request is not None:
                    await self._restore(backups, request)
            self.outputs.faults.report(faults)
            if self._is_restoring:
                raise StateRestored

    async def _restore(self, backups: Backups, request: RestoreRequest) -> None:
        """Announce a restoration if there is no state, and remove the framework of no task."""
        async with self._lock:
            if problem := _present(self.core.state):
                await backups.refuse(request, f"there is a state: {problem}")
                return
            try:
                await backups.announce(request)
            except MesaformError as error:
                await backups.refuse(request, str(error))
                return
            self._is_restoring = True
            if self._client is not None:
                await self._send(self._client, Call(type="TEARDOWN"), may_drop=True)

    def _content(self) -> StateContent:
        state = self.core.state
        return StateContent(
            tuple(state.apps.values()),
            tuple(state.instances.values()),
            tuple(state.deployments.values()),
            self.framework_id or "",
        )

    async def _tick(self) -> None:
        conditions = self.outputs.conditions
        while True:
            await asyncio.sleep(TICK_INTERVAL_S)
            if await self._decide(lambda core: core.tick(self.clock()), may_drop_calls=True):
                conditions.satisfied(Condition.PASSES)
            else:
                conditions.failed(Condition.PASSES, "a tick failed; see the log")
            conditions.check()

    async def _subscribe(self) -> None:
        """Keep a subscription; a removed framework subscribes again with a new id."""
        if self._must_find_framework:
            await self._find_framework()
        while True:
            self._client = SchedulerClient(
                self._engine, self._info(), self._session, log.info, self._framework.credential
            )
            try:
                await self._client.run(self._handle)
            except FrameworkRemoved as error:
                if self._is_restoring:
                    return
                log.warning("framework removed: starting with a new id", error=str(error))
                await self._store.store_framework_id(None)
                self.framework_id = None
                await self._decide(
                    lambda core: core.framework_removed(self.clock()), may_drop_calls=True
                )

    async def _find_framework(self) -> None:
        """Ask the master for the id of this framework, whose record was set aside."""
        while True:
            try:
                operator = OperatorClient([await self._engine()], self._session)
                framework_id = await find_framework_id(operator, self.core.state.instances)
                break
            except MesaformError as error:
                log.warning("the master does not name the framework", error=str(error))
                await asyncio.sleep(TICK_INTERVAL_S)
        self._must_find_framework = False
        self.framework_id = framework_id
        await self._store.store_framework_id(framework_id)
        log.warning("the framework id is the master's", framework_id=framework_id)

    def _info(self) -> FrameworkInfo:
        return FrameworkInfo(
            user="root",
            name=FRAMEWORK_NAME,
            id=Id(value=self.framework_id) if self.framework_id else None,
            failover_timeout=FAILOVER_TIMEOUT_S,
            checkpoint=True,
            roles=[ROLE],
            webui_url=self._framework.url,
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
    ) -> bool:
        """Apply an event; whether no exception ended it.

        An unexpected exception ends the event only. What it changed before is stored.
        """
        async with self._lock:
            core, faults = self.core, list[Fault]()
            effects: list[Effect] = []
            with contained("event", "services", faults):
                effects = decide(core)
            if faults:
                effects = core.state.take_effects()
            self.outputs.faults.report(faults)
            self._report_faults()
            await self._carry_out(effects, may_drop_calls=may_drop_calls)
        return not faults

    def _report_faults(self) -> None:
        self.outputs.faults.report(self.core.state.take_faults())

    async def _carry_out(self, effects: Sequence[Effect], *, may_drop_calls: bool) -> None:
        """Store, then send.

        The core repeats a call that was not sent after the next subscription or tick. Unless calls
        may be dropped, `Retryable` is raised so that the client subscribes again.
        """
        try:
            await self._store.apply(effects)
        except MesaformError as error:
            self.outputs.conditions.failed(Condition.ZOOKEEPER, str(error))
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


def _present(state: State) -> str:
    """What there is of a state; empty if there is nothing."""
    named = sorted(state.apps.keys() | state.set_aside_apps)
    kinds = {
        "apps": len(named),
        "tasks": len(state.instances),
        "deployments": len(state.deployments),
    }
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    return f"{counts} ({', '.join(named[:SHOWN_APPS])})" if named else counts


def _resignation(error: Exception) -> Resigned:
    """The error that gives leadership up: what is in memory may differ from what is stored."""
    return error if isinstance(error, Resigned) else Resigned(Condition.ZOOKEEPER, str(error))
