"""The end of a cluster whose time to live is over (docs/adr/0050).

Each autoscaler reads the record of the expiry, the leader's and the standbys'. The leader warns an
hour and ten minutes before, then freezes itself, drains the agents and terminates all machines, its
own last. Standbys terminate the machines if the leader has not done so in time; that needs neither
ZooKeeper nor a leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

import structlog
from msgspec import structs

from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.aws.expiry import EXPIRY, NAME, Expiry
from mesaform.aws.ports import Control, Machine
from mesaform.common.errors import MesaformError
from mesaform.common.json_types import JsonObject, as_list, as_object
from mesaform.common.records import Unreadable
from mesaform.topology.names import Tag

READ_EVERY_S = 15.0
READ_WITHOUT_END_S = 60.0
"""S3 bills each request, and most clusters have no end."""

WARNINGS_S = (3600.0, 600.0)
"""How long before the end the leader warns."""

DRAIN_S = 300.0
"""How long tasks have to end after the expiry."""

NOTICE_S = 600.0
"""How long an autoscaler must have known an end before it ends anything.

Whoever writes a wrong record, or one of the past, leaves the operator time to correct it."""

STANDBY_S = 600.0
"""After the expiry: from when a standby terminates the machines by itself."""

GRACE_S = 60.0
"""What each task gets to end itself."""

ENDED = frozenset({"shutting-down", "terminated"})

log = structlog.get_logger()


class Step(StrEnum):
    """What an autoscaler has to do."""

    WAIT = "wait"
    DRAIN = "drain"
    TERMINATE = "terminate"


def next_step(until: float, now: float, *, is_leading: bool, has_tasks: bool) -> Step:
    """Return what to do at `now` for an expiry at `until`, both in seconds since the epoch."""
    late_s = now - until
    if late_s < 0:
        return Step.WAIT
    if late_s >= STANDBY_S:
        return Step.TERMINATE
    if not is_leading:
        return Step.WAIT
    return Step.DRAIN if has_tasks and late_s < DRAIN_S else Step.TERMINATE


def due_warning(until: float, now: float) -> float | None:
    """Return the shortest of `WARNINGS_S` that the time left is within; None before all."""
    return min((ahead for ahead in WARNINGS_S if until - now <= ahead), default=None)


def in_order_of_end(machines: Sequence[Machine], own_address: str) -> list[list[Machine]]:
    """Return groups in the order in which they end: agents, other masters, this machine."""
    groups: dict[int, list[Machine]] = {}
    for machine in machines:
        is_master = machine.tags.get(Tag.ROLE) == "master"
        rank = is_master + (is_master and machine.private_address == own_address)
        groups.setdefault(rank, []).append(machine)
    return [groups[rank] for rank in sorted(groups)]


class Operator(Protocol):
    """The part of the operator API that is needed (`mesaform.mesos.operator`)."""

    async def get_agents(self) -> JsonObject: ...

    async def get_tasks(self) -> JsonObject: ...

    async def drain(self, agent_id: str, grace_s: float | None = None) -> None: ...


class Terminator(Protocol):
    """Terminates machines of a deployment (`mesaform.aws.cluster_end`). Blocks."""

    def terminate(self, machines: Sequence[Machine], deployment: str) -> None: ...


@dataclass
class ClusterExpiry:
    """Ends the cluster when its time is over.

    Args:
        address: this machine's private address.
        control: the control objects.
        leaders_control: the same; it keeps copies of records that cannot be read.
        machines: lists the cluster's machines; blocks.
        terminator: terminates them.
        operator: the leading master's operator API.
        is_leading: whether this autoscaler leads.
        decided: receives warnings and the end as decisions.
        left_s: receives the seconds that are left, and None for a cluster without an end.
        clock: seconds since the epoch.

    """

    address: str
    control: Control
    leaders_control: Control
    machines: Callable[[], Sequence[Machine]]
    terminator: Terminator
    operator: Operator
    is_leading: Callable[[], bool]
    decided: Callable[[Decision], None]
    left_s: Callable[[float | None], None]
    clock: Callable[[], float]
    _warned: tuple[float, float] | None = field(default=None, init=False)
    """End and lead time of the last warning, so that an extension warns again."""
    _has_end: bool = field(default=True, init=False)
    _announced: tuple[float, float] | None = field(default=None, init=False)
    """The end in the record, and the earliest end for want of notice."""

    async def follow(self) -> None:
        """Do what is due until cancelled. What fails is tried again."""
        while True:
            try:
                await self.step()
            except MesaformError as error:
                log.warning("the end of the cluster cannot be prepared", error=str(error))
            await asyncio.sleep(READ_EVERY_S if self._has_end else READ_WITHOUT_END_S)

    async def step(self) -> None:
        """Read the record, and do what is due.

        Raises:
            MesaformError: AWS or the engine refused or did not answer.

        """
        stored = await self._stored()
        self._has_end = stored is not None and stored.until > 0
        if stored is None or not self._has_end:
            self.left_s(None)
            return
        now = self.clock()
        expiry = structs.replace(stored, until=self._end_after_notice(stored.until, now))
        self.left_s(expiry.until - now)
        if now < expiry.until:
            self._warn(expiry, now)
            return
        machines = await self._own(expiry)
        if machines:
            await self._end(expiry, machines, now)

    async def _stored(self) -> Expiry | None:
        """The record. One that cannot be read ends nothing: the leader puts none in its place.

        `mesaform up` writes the end anew.
        """
        control = self.leaders_control if self.is_leading() else self.control
        expiry = await asyncio.to_thread(control.read_record, NAME, EXPIRY)
        if not isinstance(expiry, Unreadable):
            return expiry
        log.warning("the record of the expiry cannot be read", detail=expiry.detail)
        if self.is_leading():
            none = Expiry("", 0.0, by="the autoscaler, in place of a record that it cannot read")
            await asyncio.to_thread(control.write_record, NAME, EXPIRY, none)
        return None

    def _end_after_notice(self, until: float, now: float) -> float:
        """The end in a record, or a later one if it was not known for `NOTICE_S` before."""
        if self._announced is None or self._announced[0] != until:
            self._announced = (until, max(until, now + NOTICE_S))
        return self._announced[1]

    def _warn(self, expiry: Expiry, now: float) -> None:
        ahead_s = due_warning(expiry.until, now)
        if ahead_s is None or not self.is_leading() or self._warned == (expiry.until, ahead_s):
            return
        self._warned = (expiry.until, ahead_s)
        self._report(ReasonCode.CLUSTER_EXPIRES, expiry, left_s=expiry.until - now)

    async def _own(self, expiry: Expiry) -> list[Machine]:
        """The living machines of the record's deployment; none if this one is not among them."""
        listed = await asyncio.to_thread(self.machines)
        own = [
            machine
            for machine in listed
            if machine.tags.get(Tag.DEPLOYMENT) == expiry.deployment and machine.state not in ENDED
        ]
        is_member = any(machine.private_address == self.address for machine in own)
        return own if is_member else []

    async def _end(self, expiry: Expiry, machines: Sequence[Machine], now: float) -> None:
        is_leading = self.is_leading()
        if is_leading:
            await self._stop_new_work(expiry)
        has_tasks = is_leading and await self._drain()
        step = next_step(expiry.until, now, is_leading=is_leading, has_tasks=has_tasks)
        if step is not Step.TERMINATE:
            return
        self._report(ReasonCode.CLUSTER_EXPIRED, expiry, machines=len(machines))
        for group in in_order_of_end(machines, self.address):
            log.warning("terminating", machines=[item.instance_id for item in group])
            await asyncio.to_thread(self.terminator.terminate, group, expiry.deployment)

    async def _stop_new_work(self, expiry: Expiry) -> None:
        """A freeze, so that no machine is bought for the tasks of drained agents."""
        if await asyncio.to_thread(self.control.frozen_reason) is None:
            ended = datetime.fromtimestamp(expiry.until, UTC)
            reason = f"the cluster's ttl is over since {ended:%Y-%m-%d %H:%M} UTC"
            await asyncio.to_thread(self.control.freeze, reason)

    async def _drain(self) -> bool:
        """Drain every agent; whether any task is left. An engine that is silent has none."""
        try:
            agents = as_list((await self.operator.get_agents()).get("agents"))
            tasks = as_list((await self.operator.get_tasks()).get("tasks"))
            for agent in map(as_object, agents):
                if "drain_info" not in agent:
                    info = as_object(agent.get("agent_info"))
                    await self.operator.drain(str(as_object(info.get("id")).get("value")), GRACE_S)
        except MesaformError as error:
            log.warning("the agents cannot be drained", error=str(error))
            return False
        return bool(tasks)

    def _report(self, code: ReasonCode, expiry: Expiry, **fields: float) -> None:
        reason = Reason.of(code, until_epoch_s=expiry.until, **fields)
        self.decided(Decision(self.clock(), "expiry", (reason,)))
