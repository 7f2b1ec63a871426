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
from mesaform.autoscaler.model.reason import Reason, ReasonCode
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
        for unit, reason in drifted:
            if view.disturbances <= 0:
                break
            change = _change(unit, reason, view, names, may_buy=not buys)
            if change is not None:
                buys = buys or change.purchase is not None
                view.take(unit, disturbs=True)
                changes.append(change)
        return changes


def _drifted(view: PolicyInput, settings: Settings) -> list[tuple[AgentNode, Reason]]:
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
        reason = _reason(unit, view, settings)
        if reason is not None and view.snapshot.state.cooldown_until.get(name, 0.0) <= view.now:
            found.append((unit, reason))
    return sorted(
        found, key=lambda item: (item[0].machine.launched_at, item[0].machine.instance_id)
    )


def _replaced(name: str, view: PolicyInput) -> bool:
    return any(name in one.old_instance_ids for one in view.snapshot.state.replacements.values())


def _reason(unit: AgentNode, view: PolicyInput, settings: Settings) -> Reason | None:
    drift = drift_of(unit, view.snapshot) if settings.replace else None
    hours = (view.now - unit.machine.launched_at) / 3600
    if drift is None and settings.max_age_hours is not None and hours > settings.max_age_hours:
        return Reason.of(ReasonCode.MAX_AGE, age_hours=hours, max_age_hours=settings.max_age_hours)
    return drift


def _change(
    unit: AgentNode, reason: Reason, view: PolicyInput, drifted: Collection[str], *, may_buy: bool
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
        return DisruptionCommand("drift", reason, (deactivate(unit, "drift", reason, view.now),))
    if not may_buy:
        return None
    left = view.room.remaining(work, {*view.leaving, *drifted})
    purchase = view.find_replacement(unit.pool, work, left, number=DRIFT_NUMBER)
    return (
        DisruptionCommand("drift", reason, purchase=purchase, old=(unit.machine.instance_id,))
        if purchase
        else None
    )


def drift_of(unit: AgentNode, snapshot: Snapshot) -> Reason | None:
    """Why a machine differs from one bought now; None when it does not, or when that is unknown."""
    template, version = (
        snapshot.templates.get(unit.pool),
        unit.machine.tags.get(Tag.TEMPLATE_VERSION, ""),
    )
    if template is not None and version and version not in template.alike:
        return Reason.of(ReasonCode.TEMPLATE_OUTDATED, version=version, latest=template.latest)
    return wrong_in(unit)


def wrong_in(unit: AgentNode) -> Reason | None:
    """In what an agent's attributes differ from its instance; None for nothing."""
    if unit.agent is None:
        return None
    machine, registered = unit.machine, unit.agent.attributes
    actual = {
        "pool": unit.pool,
        "instance_type": machine.instance_type,
        "zone": machine.zone,
        "lifecycle": machine.capacity,
    }
    differing = [name for name, value in actual.items() if registered.get(name, value) != value]
    if not differing:
        return None
    return Reason.of(
        ReasonCode.ATTRIBUTES_DIFFER,
        registered=tuple(f"{name} {registered[name]}" for name in differing),
        actual=tuple(f"{name} {actual[name]}" for name in differing),
    )
