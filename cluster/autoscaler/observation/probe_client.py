"""Scheduler client of the offer probe: subscribes to the leading master and performs its effects.

The framework exists for a term of leadership and is torn down at its end. After a leader is killed
the master removes it after `FAILOVER_S`. Without the probe the autoscaler assumes that free
resources of agents are offered. Depends on `probe`, `mesos` and aiohttp.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence

import aiohttp
import structlog
from msgspec import structs

from mesaform.autoscaler.model.planner_state import Finding
from mesaform.autoscaler.model.shape import Shape, shape_of
from mesaform.autoscaler.observation import probe
from mesaform.autoscaler.observation.mesos_framework_parser import PROBE
from mesaform.common.errors import MesaformError, Permanent, Retryable
from mesaform.mesos.credential import Credential
from mesaform.mesos.messages import Capability, FrameworkInfo, from_wire, ident
from mesaform.mesos.scheduler import FrameworkRemoved, SchedulerClient
from mesaform.mesos.scheduler_api import (
    Call,
    Event,
    decline,
    revive,
    suppress,
    teardown,
    update_framework,
)

FAILOVER_S = 30.0
TICK_S = 0.5
GOODBYE_S = 2.0
REFUSED_FOR_S = 600.0
"""A master that refuses the framework is not asked again for this long."""

log = structlog.get_logger()


class ProbeFramework:
    """The framework for one term.

    Args:
        masters: base URLs such as `http://10.0.0.10:5050`. They are tried in turn. Redirects are
            followed.
        session: for its calls; owned by the caller.
        clock: seconds since the epoch.

    """

    def __init__(
        self,
        masters: Sequence[str],
        session: aiohttp.ClientSession,
        clock: Callable[[], float] = time.time,
        credential: Credential | None = None,
    ) -> None:
        self._credential = credential
        self._masters = itertools.cycle(masters)
        self._session = session
        self._clock = clock
        self._state = probe.ProbeState()
        self._client: SchedulerClient | None = None
        self._wished = asyncio.Event()
        self._refused_until = 0.0
        self._order = asyncio.Lock()

    @property
    def state(self) -> probe.State:
        """What it is doing."""
        return self._state.state

    def findings(self) -> dict[str, Finding]:
        """What is known, by shape as text."""
        return probe.known(self._state, self._clock())

    async def want(self, shapes: Iterable[Shape]) -> None:
        """Set the shapes that are suspected not to be offered."""
        if self._clock() >= self._refused_until:
            await self._happened(probe.Event("wanted", shapes=tuple(shapes)))

    async def rest(self) -> None:
        """It is not wanted at all: the framework is torn down, if there is one."""
        await self._happened(probe.Event("stop"))

    async def run(self) -> None:
        """Run until cancelled, then tear the framework down. A fault ends the probe only."""
        try:
            await self._live()
        except Exception as error:
            log.exception("the probe framework ended", error=str(error))
            self._state = probe.ProbeState()
            self._refused_until = math.inf

    async def _live(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            subscriptions = tasks.create_task(self._subscriptions(), name="probe subscriptions")
            try:
                await self._ticks()
            finally:  # while the stream is still there to say it on
                await asyncio.shield(self._goodbye())
                subscriptions.cancel()

    async def _goodbye(self) -> None:
        with contextlib.suppress(MesaformError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._happened(probe.Event("stop"))

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            lost = self._state.state in {"asking", "quiet"} and (
                self._client is None or not self._client.is_subscribed
            )
            await self._happened(probe.Event("lost" if lost else "tick"))

    async def _subscriptions(self) -> None:
        """Run frameworks in turn, each from its subscription until the master removes it."""
        while True:
            await self._wished.wait()
            self._wished.clear()
            self._client = SchedulerClient(
                self._next_master,
                an_info(),
                self._session,
                lambda line: log.info("probe", what=line),
                self._credential,
            )
            try:
                await self._client.run(self._on_event)
            except FrameworkRemoved:
                log.info("probe", what="removed by the master")
            except Permanent as error:
                log.warning(
                    "the master refuses the probe framework",
                    error=str(error),
                    again_in_s=REFUSED_FOR_S,
                )
                self._refused_until = self._clock() + REFUSED_FOR_S
            finally:
                self._client = None
            await self._happened(probe.Event("removed"))

    async def _happened(self, event: probe.Event) -> None:
        async with self._order:
            self._state, effects = probe.handle(self._state, event, self._clock())
            for effect in effects:
                await self._do(effect)

    async def _do(self, effect: probe.Effect) -> None:
        """Carry out a decision. What the master does not hear is said again on the next stream."""
        if isinstance(effect, probe.Subscribe):
            self._wished.set()
            return
        if (client := self._client) is None:
            return
        for call in self._calls(effect):
            try:
                await client.call(call)
            except Retryable:
                return
            except (
                Permanent
            ) as error:  # a master without UPDATE_FRAMEWORK: offers of any size come then
                log.warning(
                    "the master refuses a call of the probe framework",
                    call=call.type,
                    error=str(error),
                )

    def _calls(self, effect: probe.Effect) -> list[Call]:
        match effect:
            case probe.Ask(shapes=shapes):
                return [self._update(shapes), revive()]
            case probe.Decline(offer_ids=offer_ids, refuse_s=refuse_s):
                return [decline(offer_ids, refuse_s)]
            case probe.Suppress():
                return [suppress()]
            case probe.Leave():
                return [teardown()]
            case _:
                return []

    def _update(self, shapes: Sequence[Shape]) -> Call:
        filters = {PROBE: probe.shapes_as_filters(shapes)}
        principal = self._credential.principal if self._credential else None
        info = structs.replace(an_info(), offer_filters=filters, principal=principal)
        if self._client is not None and self._client.framework_id:
            info = structs.replace(info, id=ident(self._client.framework_id))
        return update_framework(info)

    async def _next_master(self) -> str:
        return next(self._masters)

    async def _on_event(self, event: Event) -> None:
        if event.subscribed is not None:
            await self._happened(probe.Event("subscribed"))
        elif event.offers is not None:
            seen = [
                probe.Seen(offer.id.value, shape_of(from_wire(offer.resources)), offer.hostname)
                for offer in event.offers.offers
            ]
            await self._happened(probe.Event("offers", offers=tuple(seen)))


def an_info() -> FrameworkInfo:
    """Return the framework's info: own role, no checkpoints, a short failover timeout."""
    return FrameworkInfo(
        user="root",
        name=PROBE,
        roles=[PROBE],
        failover_timeout=FAILOVER_S,
        checkpoint=False,
        capabilities=[
            Capability(type=name)
            for name in ("MULTI_ROLE", "PARTITION_AWARE", "GPU_RESOURCES", "REGION_AWARE")
        ],
    )
