"""Machines that are not as one bought now would be, or that are too old, make room for new ones, a few at a time.

Off until `autoscaler.drift` says so: that a machine has drifted is told in any case (`catalogue`).
"""

from __future__ import annotations

from collections.abc import Collection

from mesaform.autoscaler.disruption.policy import (
    DisruptionCommand,
    PolicyInput,
    deactivate,
    movable,
    protected,
)
from mesaform.autoscaler.model.snapshot import PolicyName
from mesaform.autoscaler.model.supply import AgentNode
from mesaform.autoscaler.planner import advertised_capacity
from mesaform.autoscaler.planner.rescheduling import work_of
from mesaform.autoscaler.planner.scale_up import DRIFT, replacement_for
from mesaform.config.schema import Drift as Settings


class Drift:
    name: PolicyName = "drift"

    def propose(self, view: PolicyInput) -> list[DisruptionCommand]:
        """As many as may be disturbed now, the longest running first. One at most is waited for that has to be bought first."""
        settings = view.snapshot.spec.autoscaler.drift
        changes: list[DisruptionCommand] = []
        buys = bool(view.snapshot.memory.replacements)
        drifted = _drifted(view, settings)
        names = {unit.machine.instance_id for unit, _ in drifted}
        for unit, why in drifted:
            if view.disturbances <= 0:
                break
            change = _change(unit, why, view, names, may_buy=not buys)
            if change is not None:
                buys = buys or change.purchase is not None
                view.take(unit, disturbs=True)
                changes.append(change)
        return changes


def _drifted(view: PolicyInput, settings: Settings) -> list[tuple[AgentNode, str]]:
    found = []
    for unit in view.supply.units:
        name = unit.machine.instance_id
        taken = (
            name in view.going | view.room.hosts | view.needed
            or name in view.supply.quarantined
            or _replaced(name, view)
        )
        if (
            unit.state not in {"idle", "busy"}
            or not unit.is_ours
            or unit.removal is not None
            or taken
            or protected(unit)
        ):
            continue
        why = _why(unit, view, settings)
        if why and view.snapshot.memory.spared.get(name, 0.0) <= view.now:
            found.append((unit, why))
    return sorted(
        found, key=lambda item: (item[0].machine.launched_at, item[0].machine.instance_id)
    )


def _replaced(name: str, view: PolicyInput) -> bool:
    return any(name in one.old for one in view.snapshot.memory.replacements.values())


def _why(unit: AgentNode, view: PolicyInput, settings: Settings) -> str:
    drift = advertised_capacity.drift_of(unit, view.snapshot) if settings.replace else ""
    hours = (view.now - unit.machine.launched_at) / 3600
    if not drift and settings.max_age_hours is not None and hours > settings.max_age_hours:
        return f"runs for {hours:.0f} hours (drift.max_age_hours {settings.max_age_hours:g})"
    return drift


def _change(
    unit: AgentNode, why: str, view: PolicyInput, drifted: Collection[str], *, may_buy: bool
) -> DisruptionCommand | None:
    """Its tasks move to where there is room, never to another that has drifted; where there is none, a machine is bought first."""
    agent = unit.agent
    if (
        agent is None
        or not agent.active
        or (not agent.is_empty and not movable(agent, view.snapshot))
    ):
        return None
    work = work_of(agent, view.snapshot.apps)
    if view.room.fit(work, {*view.leaving, *drifted}) is not None:
        return DisruptionCommand("drift", why, (deactivate(unit, "drift", why, view.now),))
    if not may_buy:
        return None
    left = view.room.remaining(work, {*view.leaving, *drifted})
    purchase = replacement_for(
        view.snapshot, view.supply, unit.pool, work, left, (), view.now, DRIFT
    )
    return (
        DisruptionCommand("drift", why, purchase=purchase, old=(unit.machine.instance_id,))
        if purchase
        else None
    )
