"""Waits of verbs: until masters serve, and until the whole cluster answers.

Each wait looks at every source of `status` again and again, says what is missing, and names the
logs that explain it when its time is up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mesaform.cli.context import Context
from mesaform.common.errors import MesaformError
from mesaform.common.progress import Report, Stage, stage
from mesaform.status.ready import Missing
from mesaform.status.view import Sources, Status

if TYPE_CHECKING:
    import aiohttp

    from mesaform.cli.teardown_rollback import TeardownRollback
    from mesaform.status.gather import Gatherer

POLL_S = 0.5
TIMEOUT_S = {"local": 180.0, "aws": 900.0}
"""Seconds until the machines of a target must answer."""


@dataclass(frozen=True, slots=True)
class ClusterWaits:
    """Waits on one cluster.

    Args:
        context: the cluster.
        report: receives progress, one stage for each wait.
        timeout_s: the bound of each wait; 0 stands for that of the target.

    """

    context: Context
    report: Report
    timeout_s: float = 0.0

    @property
    def bound_s(self) -> float:
        """Seconds after which a wait gives up."""
        return self.timeout_s or TIMEOUT_S[self.context.spec.target]

    async def until_serving(self, count: int) -> None:
        """Wait until `count` masters serve (`rolling.WaitUntilServing`).

        Raises:
            MesaformError: the time is up; it names what is missing and where its log is.

        """
        from mesaform.cli.wiring import Wiring
        from mesaform.status.ready import missing_to_serve
        from mesaform.status.tls_switch import TlsSwitch

        spec = self.context.spec
        switch = TlsSwitch(spec)

        async def lacks(picture: Status, sources: Sources) -> tuple[Missing, ...]:
            lacking = missing_to_serve(picture, sources, count, spec)
            if not lacking:
                return ()
            of_masters = await switch.missing(picture, sources)
            if not switch.is_under_way:
                return lacking
            # Masters that have no machine yet count only where all must serve.
            return tuple(item for item in of_masters if item.machine or count == spec.masters.count)

        with stage(self.report, f"Wait until {count} masters serve") as under_way:
            async with Wiring(self.context).open_session() as session:
                await self._until(self._gatherer(session), lacks, under_way)
                under_way.outcome = "ZooKeeper, engine and registry answer"

    async def until_up(self) -> Status:
        """Wait until nothing is missing. Lifts the freeze of an unfinished `down` on the way.

        Raises:
            MesaformError: the time is up; it names what is missing and where its log is.

        """
        from mesaform.cli.teardown_rollback import TeardownRollback
        from mesaform.cli.wiring import Wiring
        from mesaform.status.ready import missing

        wiring = Wiring(self.context)

        async def lacks(picture: Status, sources: Sources) -> tuple[Missing, ...]:
            up, services_up = sorted(sources.masters_up), sorted(sources.services_up)
            return missing(picture, self.context.spec, up, services_up)

        with stage(self.report, "Wait for the cluster to answer") as under_way:
            async with wiring.open_session() as session:
                freeze = await asyncio.to_thread(wiring.control.frozen_reason)
                rollback = TeardownRollback(wiring.control, wiring.operator(session), freeze)
                picture = await self._until(
                    self._gatherer(session), lacks, under_way, rollback=rollback
                )
                under_way.outcome = f"{len(picture.masters)} masters, {len(picture.agents)} agents"
        return picture

    async def waiting_instances(self) -> int | None:
        """How many instances of apps wait for a machine; None if the services do not answer."""
        from mesaform.cli.wiring import Wiring
        from mesaform.status.view import join

        wiring = Wiring(self.context)
        prices = await asyncio.to_thread(lambda: wiring.prices)
        async with wiring.open_session() as session:
            sources = await self._gatherer(session).gather()
        demand = join(self.context.spec, sources, prices).demand
        return None if demand is None else demand.instances

    def _gatherer(self, session: aiohttp.ClientSession) -> Gatherer:
        from mesaform.cli.wiring import Wiring
        from mesaform.status.gather import Gatherer

        wiring = Wiring(self.context)
        return Gatherer(
            self.context.spec,
            session,
            wiring.fleet,
            wiring.control,
            outputs=wiring.outputs_reader,
        )

    async def _until(
        self,
        gatherer: Gatherer,
        lacks: Callable[[Status, Sources], Awaitable[tuple[Missing, ...]]],
        under_way: Stage,
        *,
        rollback: TeardownRollback | None = None,
    ) -> Status:
        from mesaform.cli.wiring import Wiring
        from mesaform.status.view import join

        prices = await asyncio.to_thread(lambda: Wiring(self.context).prices)
        began = time.monotonic()
        while True:
            sources = await _look(gatherer)
            picture = join(self.context.spec, sources, prices)
            lacking = await lacks(picture, sources)
            if picture.leader and rollback is not None and not rollback.done:
                await rollback.step(picture.agents)
            elif not lacking:
                return picture
            if time.monotonic() - began > self.bound_s:
                raise self._too_late(lacking)
            under_way.advance("; ".join(item.what for item in lacking))
            await asyncio.sleep(POLL_S)

    def _too_late(self, lacking: tuple[Missing, ...]) -> MesaformError:
        lines = [f"    {item.what}{_log_of(self.context, item)}" for item in lacking]
        return MesaformError(
            f"the cluster does not answer after {self.bound_s:.0f} s; missing:\n"
            + "\n".join(lines),
            where=self.context.spec.name,
            fix="carry on waiting and repair: mesaform up    go back: mesaform down",
        )


async def _look(gatherer: Gatherer) -> Sources:
    """Every source once.

    Raises:
        NotAuthenticated: the credentials have expired; no wait renews them.

    """
    sources = await gatherer.gather()
    if gatherer.expired is not None:
        raise gatherer.expired
    return sources


def _log_of(context: Context, item: Missing) -> str:
    """The end of the console and of the log of the machine that lacks a part."""
    if not item.machine:
        return ""
    from mesaform.cli.machine_console import explain

    return explain(context, item.machine, item.service)
