"""Machines that are not as one bought now would be, or that are too old, make room for new ones, a few at a time.

Off until `autoscaler.drift` says so: that a machine has drifted is told in any case (`catalogue`).
"""

from __future__ import annotations

from collections.abc import Collection

from mesaform.autoscaler.disruption.policy import (
    DRIFT_NUMBER,
    DisruptionCommand,
    PolicyInput,
    deactivate,
    movable,
)
from mesaform.autoscaler.disruption.rescheduling import work_of
from mesaform.autoscaler.model.removal import PolicyName
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import AgentNode, is_protected
from mesaform.config.schema import Drift as Settings
from mesaform.topology.names import Tag


class Drift:
    name: PolicyName = "drift"

    def propose(self, view: PolicyInput) -> list[DisruptionCommand]:
        """As many as may be disturbed now, the longest running first. One at most is waited for that has to be bought first."""
        settings = view.snapshot.spec.autoscaler.drift
        changes: list[DisruptionCommand] = []
        buys = bool(view.snapshot.state.replacements)
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
    for unit in view.supply.agent_nodes:
        name = unit.machine.instance_id
        taken = (
            name in view.going | view.room.hosts | view.needed
            or name in view.supply.quarantined
            or _replaced(name, view)
        )
        if (
            unit.state not in {"idle", "busy"}
            or not unit.is_autoscaled
            or unit.removal is not None
            or taken
            or is_protected(unit)
        ):
            continue
        why = _why(unit, view, settings)
        if why and view.snapshot.state.cooldown_until.get(name, 0.0) <= view.now:
            found.append((unit, why))
    return sorted(
        found, key=lambda item: (item[0].machine.launched_at, item[0].machine.instance_id)
    )


def _replaced(name: str, view: PolicyInput) -> bool:
    return any(name in one.old_instance_ids for one in view.snapshot.state.replacements.values())


def _why(unit: AgentNode, view: PolicyInput, settings: Settings) -> str:
    drift = drift_of(unit, view.snapshot) if settings.replace else ""
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
    work = work_of(agent, view.snapshot.app_constraints)
    if view.room.fit(work, {*view.leaving, *drifted}) is not None:
        return DisruptionCommand("drift", why, (deactivate(unit, "drift", why, view.now),))
    if not may_buy:
        return None
    left = view.room.remaining(work, {*view.leaving, *drifted})
    purchase = view.find_replacement(unit.pool, work, left, number=DRIFT_NUMBER)
    return (
        DisruptionCommand("drift", why, purchase=purchase, old=(unit.machine.instance_id,))
        if purchase
        else None
    )


def drift_of(unit: AgentNode, snapshot: Snapshot) -> str:
    """Why a machine is not as one bought now would be; empty when it is, or when that is not known."""
    template, version = (
        snapshot.templates.get(unit.pool),
        unit.machine.tags.get(Tag.TEMPLATE_VERSION, ""),
    )
    if template is not None and version and version not in template.alike:
        return (
            f"comes from version {version} of its launch template, the newest is {template.latest}"
        )
    return wrong_in(unit)


def wrong_in(unit: AgentNode) -> str:
    """In what an agent says it is something else than its machine; empty for nothing."""
    if unit.agent is None:
        return ""
    machine, said = unit.machine, unit.agent.attributes
    is_ = {
        "pool": unit.pool,
        "instance_type": machine.instance_type,
        "zone": machine.zone,
        "lifecycle": machine.capacity,
    }
    found = [
        f"{name} {said[name]} and is of {name} {value}"
        for name, value in is_.items()
        if said.get(name, value) != value
    ]
    return f"registered as {', '.join(found)}" if found else ""
