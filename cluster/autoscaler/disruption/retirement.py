"""Machines that AWS will stop, restart or retire some day, or advises to leave: emptied ahead, within the budgets of disruption.

It goes on in `interruption`: what their tasks need is bought first, and they drain once it is up.
"""

from __future__ import annotations

from mesaform.autoscaler.disruption.policy import (
    DisruptionCommand,
    PolicyInput,
    deactivate,
    movable,
)
from mesaform.autoscaler.model.notice import Notice, is_near, reason_of
from mesaform.autoscaler.model.removal import PolicyName
from mesaform.autoscaler.model.supply import AgentNode, is_protected


class Announced:
    name: PolicyName = "retirement"

    def propose(self, view: PolicyInput) -> list[DisruptionCommand]:
        """The soonest end first; one without tasks disturbs nobody."""
        notices, changes = view.snapshot.state.notices, []
        for unit in sorted(
            view.supply.agent_nodes,
            key=lambda unit: _ends_at(notices.get(unit.machine.instance_id)),
        ):
            notice = notices.get(unit.machine.instance_id)
            if notice is None or not _may_go(unit, notice, view):
                continue
            disturbs = unit.agent is not None and not unit.agent.is_empty
            if disturbs and view.disturbances <= 0:
                continue
            view.take(unit, disturbs=disturbs)
            reason = reason_of(notice, view.now)
            policy: PolicyName = "rebalance" if notice.kind == "rebalance" else "retirement"
            changes.append(
                DisruptionCommand(policy, reason, (deactivate(unit, policy, reason, view.now),))
            )
        return changes


def _ends_at(notice: Notice | None) -> float:
    return (notice.ends_at or float("inf")) if notice else float("inf")


def _may_go(unit: AgentNode, notice: Notice, view: PolicyInput) -> bool:
    name = unit.machine.instance_id
    if (
        unit.agent is None
        or unit.removal is not None
        or name in view.going
        or name in view.supply.quarantined
        or is_near(notice, view.now)
    ):
        return False
    if view.snapshot.state.cooldown_until.get(name, 0.0) > view.now:
        return False
    if notice.kind == "scheduled":
        return (
            notice.ends_at - view.now <= view.snapshot.spec.autoscaler.interruption.retire_ahead_s
        )
    return _heeds_advice(unit, view)


def _heeds_advice(unit: AgentNode, view: PolicyInput) -> bool:
    """Advice is followed where the spec says so, for machines of ours that have paid back and whose tasks may move."""
    if (
        view.snapshot.spec.autoscaler.interruption.on_rebalance != "replace"
        or not unit.is_autoscaled
        or is_protected(unit)
        or unit.agent is None
    ):
        return False
    if view.now - unit.machine.launched_at < view.settings.payback_s:
        return False
    return unit.agent.is_empty or movable(unit.agent, view.snapshot)
