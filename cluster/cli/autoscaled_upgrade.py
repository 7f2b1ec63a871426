"""Agents of the autoscaler in a run of changes: shown beside Terraform's, and replaced after them.

Connects `provision.autoscaled_agents` to EC2, the overrides in S3 and the services.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mesaform.cli.context import Context
from mesaform.common.progress import Report

if TYPE_CHECKING:
    from mesaform.aws.ports import Machine
    from mesaform.cli.cluster_waits import ClusterWaits
    from mesaform.cli.override_client import OverrideClient
    from mesaform.cli.wiring import Wiring
    from mesaform.provision.preview import Preview

DRAIN_FOR = "1d"
"""How long an order to drain is in force where the run does not withdraw it."""
REASON = "mesaform upgrade agents"


def with_autoscaled(context: Context, preview: Preview, upgraded_roles: Collection[str]) -> Preview:
    """The preview with the autoscaler's agents that are behind once it is deployed. Asks EC2.

    They are replaced if the role `agent` is upgraded, else they are named as outdated.
    """
    from mesaform.cli.wiring import Wiring
    from mesaform.provision.autoscaled_agents import find_behind, replacement_of

    fleet, name = Wiring(context).fleet, context.spec.name
    machines = fleet.machines(name)
    behind = find_behind(machines, fleet.templates(name), preview.changed_templates)
    changes = tuple(map(replacement_of, behind))
    if "agent" in upgraded_roles:
        return replace(preview, autoscaled=changes)
    return replace(preview, outdated=(*preview.outdated, *changes))


async def replace_autoscaled(context: Context, waits: ClusterWaits, batch_size: int) -> None:
    """Replace the autoscaler's agents that are behind the templates, as they are now.

    Raises:
        MesaformError: an agent did not end in time, or its work does not run again.

    """
    from mesaform.cli.wiring import Wiring
    from mesaform.provision.agent_changes import DRAIN_MARGIN_S
    from mesaform.provision.autoscaled_agents import AutoscaledUpgrade

    drain_s = context.spec.autoscaler.drain_grace_s + DRAIN_MARGIN_S
    report: Report = waits.report
    cluster = _Cluster(context, waits, Wiring(context))
    await AutoscaledUpgrade(cluster, report, batch_size, waits.bound_s + drain_s).run()


@dataclass(frozen=True, slots=True)
class _Cluster:
    """`Autoscaled` of a cluster."""

    context: Context
    waits: ClusterWaits
    wiring: Wiring

    @property
    def _orders(self) -> OverrideClient:
        from mesaform.cli.override_client import OverrideClient

        return OverrideClient(self.context, self.wiring.control, self.wiring.ledger)

    async def _machines(self) -> list[Machine]:
        return await asyncio.to_thread(self.wiring.fleet.machines, self.context.spec.name)

    async def behind(self) -> Sequence[Machine]:
        from mesaform.provision.autoscaled_agents import find_behind

        name = self.context.spec.name
        templates = await asyncio.to_thread(self.wiring.fleet.templates, name)
        return find_behind(await self._machines(), templates)

    async def living(self, instance_ids: Collection[str]) -> set[str]:
        from mesaform.provision.autoscaled_agents import GONE

        return {
            machine.instance_id
            for machine in await self._machines()
            if machine.instance_id in instance_ids and machine.state not in GONE
        }

    async def draining(self) -> set[str]:
        import time

        from mesaform.aws.overrides import in_force

        overrides = await asyncio.to_thread(self.wiring.control.overrides)
        drains = [item for item in in_force(overrides, time.time()) if item.kind == "drain"]
        return {override.target for override in drains}

    async def drain(self, instance_id: str) -> None:
        from mesaform.cli.override_client import new_override

        order = new_override("drain", DRAIN_FOR, REASON, target=instance_id)
        await asyncio.to_thread(self._orders.give, order)

    async def withdraw(self, instance_ids: Collection[str]) -> None:
        targets = set(instance_ids)
        await asyncio.to_thread(
            self._orders.withdraw, lambda order: order.kind == "drain" and order.target in targets
        )

    async def waiting(self) -> int | None:
        return await self.waits.waiting_instances()
