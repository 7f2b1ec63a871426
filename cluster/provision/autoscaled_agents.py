"""Agents of the autoscaler that are behind their launch template, and their replacement.

The autoscaler is asked to drain them, one batch at a time (override `drain`). It empties and ends
each machine, and buys others where work waits. The next batch begins when the machines have ended
and no more work waits than before. Nothing is recorded here: the overrides in force and the
machines' template versions say what is left, so that the next run continues after a kill.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mesaform.aws.ports import Machine, Template
from mesaform.common.architecture import architecture_of
from mesaform.common.errors import MesaformError
from mesaform.common.progress import Report, Stage, stage
from mesaform.provision.machine_changes import MachineChange
from mesaform.topology.names import Tag, launch_template_name, template_key

WHY = "launch template"
LIVING = frozenset({"pending", "running"})
GONE = frozenset({"shutting-down", "terminated"})
POLL_S = 1.0


def find_behind(
    machines: Iterable[Machine],
    templates: Mapping[str, Template],
    changed: Collection[str] = (),
) -> tuple[Machine, ...]:
    """Living agents of the autoscaler that another version would launch now, the oldest first.

    Args:
        machines: the machines of the cluster.
        templates: its launch templates by `names.template_key`.
        changed: names of launch templates that a deployment is about to change.

    """
    behind = [
        machine
        for machine in machines
        if _is_own_agent(machine) and _is_behind(machine, templates, changed)
    ]
    return tuple(sorted(behind, key=lambda machine: (machine.launched_at, machine.instance_id)))


def _is_own_agent(machine: Machine) -> bool:
    tags = machine.tags
    is_agent = tags.get(Tag.ROLE) == "agent" and tags.get(Tag.MANAGED_BY) == "autoscaler"
    return is_agent and machine.state in LIVING


def _is_behind(
    machine: Machine, templates: Mapping[str, Template], changed: Collection[str]
) -> bool:
    """Whether the machine's version is known, and differs in more than tags from the newest."""
    pool, architecture = machine.tags.get(Tag.POOL, ""), architecture_of(machine.instance_type)
    if launch_template_name(machine.tags.get(Tag.CLUSTER, ""), pool, architecture) in changed:
        return True
    template = templates.get(template_key(pool, architecture))
    version = machine.tags.get(Tag.TEMPLATE_VERSION, "")
    return template is not None and bool(version) and version not in template.alike


def replacement_of(machine: Machine) -> MachineChange:
    """The change that a person is shown for a machine that is behind."""
    kind = machine.instance_type
    return MachineChange(
        machine.instance_id,
        f"{machine.tags.get(Tag.POOL, '')} (autoscaler)",
        "agent",
        "replace",
        (WHY,),
        pool=machine.tags.get(Tag.POOL, ""),
        type_before=kind,
        type_after=kind,
    )


class Autoscaled(Protocol):
    """What the procedure reads and orders. All calls may be repeated."""

    async def behind(self) -> Sequence[Machine]:
        """Machines that are behind (`find_behind`)."""
        ...

    async def living(self, instance_ids: Collection[str]) -> set[str]:
        """Those of the machines that have not begun to end."""
        ...

    async def draining(self) -> set[str]:
        """Instance ids for which an order to drain is in force."""
        ...

    async def drain(self, instance_id: str) -> None:
        """Order the autoscaler to drain and end a machine."""
        ...

    async def withdraw(self, instance_ids: Collection[str]) -> None:
        """Withdraw the orders for machines that have ended."""
        ...

    async def waiting(self) -> int | None:
        """How many instances of apps wait for a machine; None if nobody answers."""
        ...


@dataclass(frozen=True, slots=True)
class AutoscaledUpgrade:
    """Replaces the autoscaler's agents that are behind.

    Args:
        cluster: reads and orders.
        report: receives progress, one stage for each batch.
        batch_size: how many machines leave at the same time.
        bound_s: how long a batch may take to end, and its work to run again.

    """

    cluster: Autoscaled
    report: Report
    batch_size: int
    bound_s: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self) -> None:
        """Replace batch by batch until no machine is behind.

        Raises:
            MesaformError: a batch did not end in time, or its work does not run again.

        """
        while behind := await self.cluster.behind():
            draining = await self.cluster.draining()
            # A batch that an interrupted run ordered goes first.
            ordered = sorted(behind, key=lambda machine: machine.instance_id not in draining)
            batch = [machine.instance_id for machine in ordered[: self.batch_size]]
            title = f"Replace {', '.join(batch)} ({len(behind)} of the autoscaler's are behind)"
            with stage(self.report, title) as under_way:
                await self._replace(batch, draining, under_way)

    async def _replace(self, batch: Sequence[str], draining: set[str], under_way: Stage) -> None:
        waited_for = await self.cluster.waiting()
        for instance_id in batch:
            if instance_id not in draining:
                await self.cluster.drain(instance_id)
        await self._until_ended(batch, under_way)
        await self.cluster.withdraw(batch)
        await self._until_rehoused(waited_for, under_way)

    async def _until_ended(self, batch: Sequence[str], under_way: Stage) -> None:
        began = self.clock()
        while living := await self.cluster.living(batch):
            if self.clock() - began >= self.bound_s:
                raise MesaformError(
                    f"{', '.join(sorted(living))} did not end within {self.bound_s:.0f} s",
                    where="agents",
                    fix="no other agent was drained. The autoscaler goes on with these: see"
                    f" `mesaform why {min(living)}` and `mesaform status`. Then run the same"
                    " command again: it carries on. To keep a machine: mesaform drain --undo",
                )
            under_way.advance(f"{len(living)} of {len(batch)} are drained")
            await self.sleep(POLL_S)

    async def _until_rehoused(self, waited_for: int | None, under_way: Stage) -> None:
        """Wait until no more instances wait than before the batch."""
        began = self.clock()
        while (waiting := await self.cluster.waiting()) is None or waiting > (waited_for or 0):
            if self.clock() - began >= self.bound_s:
                raise MesaformError(
                    f"{'an unknown number of' if waiting is None else waiting} instances wait for"
                    f" a machine after {self.bound_s:.0f} s",
                    where="agents",
                    fix="no other agent was drained; see `mesaform status`, then run the same"
                    " command again: it carries on",
                )
            under_way.advance(
                "services do not answer" if waiting is None else f"{waiting} instances wait"
            )
            await self.sleep(POLL_S)
        under_way.outcome = "ended; all of their work runs elsewhere"
